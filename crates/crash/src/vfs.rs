//! Between SQLite and its own file system. All the unsafe code of the tests.
//!
//! SQLite hands each file a piece of memory as large as its file system asks for. Ours asks for room
//! for a [`Shim`] and for a file of the system's own behind it, and passes every call on to that one.

#![expect(
    unsafe_code,
    reason = "SQLite's interface to files is made of C functions and pointers"
)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::slice;
use std::sync::OnceLock;

use rusqlite::ffi::{
    SQLITE_CANTOPEN, SQLITE_ERROR, SQLITE_IOERR, SQLITE_OK, sqlite3_file, sqlite3_io_methods,
    sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::watch::{self, Effect, Opened};

/// The system's own file system.
struct System(*mut sqlite3_vfs);

// SAFETY: SQLite calls a file system from any thread, and never changes or frees a registered one.
unsafe impl Send for System {}
// SAFETY: As above; it is only read here.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<Option<System>> = OnceLock::new();

/// A file of ours; the system's own lies behind it in memory.
#[repr(C)]
struct Shim {
    base: sqlite3_file,
    /// A box, or null for a file that nobody watches.
    opened: *mut Opened,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // 2: with shared memory, without memory maps, which would read past us.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes this the file system of every connection that is opened from now on in this process.
///
/// Returns whether SQLite took it.
pub(crate) fn install() -> bool {
    SYSTEM.get_or_init(register).is_some()
}

fn register() -> Option<System> {
    // SAFETY: Null asks for the default file system; the answer is null or lives for ever.
    let system = unsafe { sqlite3_vfs_find(ptr::null()) };
    if system.is_null() {
        return None;
    }
    // SAFETY: It was just checked, and is plain data whose copy is as good: functions that are not
    // replaced find in it what they find in the original.
    let mut ours = unsafe { ptr::read(system) };
    ours.szOsFile += c_int::try_from(size_of::<Shim>()).ok()?;
    ours.pNext = ptr::null_mut();
    ours.zName = CString::into_raw(c"sealcast-crash".to_owned());
    ours.xOpen = Some(open);
    ours.xDelete = Some(delete);
    // SAFETY: It is never freed, nor is its name.
    let code = unsafe { sqlite3_vfs_register(Box::leak(Box::new(ours)), 1) };
    (code == SQLITE_OK).then_some(System(system))
}

fn system() -> *mut sqlite3_vfs {
    match SYSTEM.get() {
        Some(Some(System(system))) => *system,
        Some(None) | None => ptr::null_mut(),
    }
}

/// The path that SQLite means.
///
/// # Safety
///
/// `name` is null, or ends in a zero byte and lives as long as the answer is used.
unsafe fn path<'a>(name: *const c_char) -> Option<&'a Path> {
    if name.is_null() {
        return None;
    }
    // SAFETY: The caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Some(Path::new(OsStr::from_bytes(name.to_bytes())))
}

/// The system's own file behind one of ours.
///
/// # Safety
///
/// `file` is a file of ours.
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite gave `szOsFile` bytes, which are those of a `Shim` and of a file of the system's.
    unsafe { file.cast::<Shim>().add(1).cast() }
}

/// What is known of an open file that is watched.
///
/// # Safety
///
/// `file` is an open file of ours, and SQLite calls no other method on it meanwhile.
unsafe fn opened<'a>(file: *mut sqlite3_file) -> Option<&'a Opened> {
    // SAFETY: `open` wrote the pointer: null, or that of a box which only `close` takes back.
    unsafe { (*file.cast::<Shim>()).opened.as_ref() }
}

unsafe extern "C" fn open(
    _ours: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory for a `Shim` and a file of the system's, and a name that lives as
    // long as the file.
    unsafe {
        (*file).pMethods = ptr::null();
        let path = path(name);
        let was_there = path.is_some_and(Path::exists);
        let Some(open) = (*system()).xOpen else {
            return SQLITE_CANTOPEN;
        };
        let inner = inner(file);
        (*inner).pMethods = ptr::null();
        let code = open(system(), name, inner, flags, flags_out);
        if (*inner).pMethods.is_null() {
            return code;
        }
        let opened = path.and_then(|path| watch::opened(path, was_there));
        let shim = file.cast::<Shim>();
        (*shim).opened = opened.map_or(ptr::null_mut(), |of| Box::into_raw(Box::new(of)));
        (*file).pMethods = &METHODS;
        code
    }
}

unsafe extern "C" fn delete(
    _ours: *mut sqlite3_vfs,
    name: *const c_char,
    syncs_folder: c_int,
) -> c_int {
    // SAFETY: SQLite's name lives during the call; the system's function is called as it asks.
    unsafe {
        let Some(delete) = (*system()).xDelete else {
            return SQLITE_IOERR;
        };
        let remove = || delete(system(), name, syncs_folder);
        match path(name) {
            Some(path) => watch::deleted(path, syncs_folder != 0, remove),
            None => remove(),
        }
    }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: The last call on an open file; the box is taken back once.
    unsafe {
        let shim = file.cast::<Shim>();
        if !(*shim).opened.is_null() {
            drop(Box::from_raw((*shim).opened));
            (*shim).opened = ptr::null_mut();
        }
        let inner = inner(file);
        match (*(*inner).pMethods).xClose {
            Some(close) => close(inner),
            None => SQLITE_OK,
        }
    }
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite gives `count` readable bytes; the system's function is called as it asks.
    unsafe {
        let inner = inner(file);
        let Some(write) = (*(*inner).pMethods).xWrite else {
            return SQLITE_IOERR;
        };
        let Some(opened) = opened(file) else {
            return write(inner, bytes, count, at);
        };
        let whole = slice::from_raw_parts(bytes.cast::<u8>(), usize::try_from(count).unwrap_or(0));
        opened.write(at, whole, |part| {
            let count = c_int::try_from(part.len()).unwrap_or(0);
            write(inner, part.as_ptr().cast(), count, at)
        })
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: An open file; the system's function is called as it asks.
    unsafe {
        let inner = inner(file);
        let Some(truncate) = (*(*inner).pMethods).xTruncate else {
            return SQLITE_IOERR;
        };
        match opened(file) {
            Some(opened) => opened.make(Effect::Cut(size), || truncate(inner, size)),
            None => truncate(inner, size),
        }
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: An open file; the system's function is called as it asks.
    unsafe {
        let inner = inner(file);
        let Some(sync) = (*(*inner).pMethods).xSync else {
            return SQLITE_IOERR;
        };
        match opened(file) {
            Some(opened) => opened.make(Effect::Sync, || sync(inner, flags)),
            None => sync(inner, flags),
        }
    }
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    region: c_int,
    size: c_int,
    may_grow: c_int,
    map: *mut *mut c_void,
) -> c_int {
    // SAFETY: An open file; the system's function is called as it asks. A second call for the same
    // region, this time with leave to grow, is what SQLite does itself.
    unsafe {
        let inner = inner(file);
        let Some(shm_map) = (*(*inner).pMethods).xShmMap else {
            return SQLITE_IOERR;
        };
        let code = shm_map(inner, region, size, 0, map);
        if code != SQLITE_OK || may_grow == 0 || !(*map).is_null() {
            return code;
        }
        let grow = || shm_map(inner, region, size, may_grow, map);
        match opened(file) {
            Some(opened) => opened.make(Effect::Grow, grow),
            None => grow(),
        }
    }
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    // SAFETY: An open file; the system's function is called as it asks.
    unsafe {
        let inner = inner(file);
        if let Some(shm_barrier) = (*(*inner).pMethods).xShmBarrier {
            shm_barrier(inner);
        }
    }
}

/// Calls that are passed on and nothing else.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($argument:ident: $type:ty),*);)*) => {$(
        unsafe extern "C" fn $name(file: *mut sqlite3_file, $($argument: $type),*) -> c_int {
            // SAFETY: An open file; the system's function is called as it asks.
            unsafe {
                let inner = inner(file);
                match (*(*inner).pMethods).$method {
                    Some(call) => call(inner, $($argument),*),
                    None => SQLITE_ERROR,
                }
            }
        }
    )*};
}

pass_on! {
    read = xRead(into: *mut c_void, count: c_int, at: i64);
    file_size = xFileSize(size: *mut i64);
    lock = xLock(level: c_int);
    unlock = xUnlock(level: c_int);
    check_reserved_lock = xCheckReservedLock(is_held: *mut c_int);
    file_control = xFileControl(operation: c_int, argument: *mut c_void);
    sector_size = xSectorSize();
    device_characteristics = xDeviceCharacteristics();
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int);
    shm_unmap = xShmUnmap(deletes: c_int);
}
