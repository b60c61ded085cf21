//! What the bodies of packets are made of: numbers, texts, properties.

/// Not a packet that the other side may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not MQTT")]
pub(crate) struct Malformed;

/// The properties of MQTT 5 that are looked at here, by the numbers that the standard gives them.
pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
pub(crate) const EXPIRY: u8 = 0x02;
pub(crate) const SESSION_EXPIRY: u8 = 0x11;
pub(crate) const ASSIGNED_CLIENT: u8 = 0x12;
pub(crate) const RECEIVE_MAX: u8 = 0x21;
pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(crate) const TOPIC_ALIAS: u8 = 0x23;
pub(crate) const PACKET_MAX: u8 = 0x27;

/// Reads one field after the other.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn number(&mut self) -> Result<u16, Malformed> {
        let (number, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u16::from_be_bytes(*number))
    }

    /// A number of one to four bytes, the lowest seven bits first.
    pub(crate) fn variable(&mut self) -> Result<usize, Malformed> {
        let mut number = 0;
        for index in 0..4 {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// Bytes behind their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(usize::from(length))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)?;
        match text.contains('\0') {
            true => Err(Malformed),
            false => Ok(text),
        }
    }

    /// Properties behind their length.
    pub(crate) fn properties(&mut self) -> Result<Properties<'a>, Malformed> {
        let length = self.variable()?;
        let properties = Properties(self.take(length)?);
        properties.each(|_| Ok(()))?;
        Ok(properties)
    }
}

/// Properties of a packet, without their length; each is one that the standard has.
#[derive(Clone, Copy, Default)]
pub(crate) struct Properties<'a>(&'a [u8]);

/// One of them.
#[derive(Clone, Copy)]
pub(crate) struct Property<'a> {
    pub(crate) key: u8,
    value: &'a [u8],
    /// Key and value.
    whole: &'a [u8],
}

impl<'a> Properties<'a> {
    pub(crate) fn each(
        &self,
        mut visit: impl FnMut(Property<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut fields = Fields::new(self.0);
        while !fields.rest().is_empty() {
            let before = fields.rest();
            let key = fields.byte()?;
            let value = skip_value(key, &mut fields)?;
            let whole = &before[..before.len() - fields.rest().len()];
            visit(Property { key, value, whole })?;
        }
        Ok(())
    }

    /// The one with some key, which must not be there twice.
    pub(crate) fn find(&self, key: u8) -> Result<Option<Property<'a>>, Malformed> {
        let mut found = None;
        self.each(|of| match (of.key == key, found.is_some()) {
            (true, true) => Err(Malformed),
            (true, false) => {
                found = Some(of);
                Ok(())
            }
            (false, _) => Ok(()),
        })?;
        Ok(found)
    }

    /// Puts them behind their length, in their order and byte for byte, but for those with some keys, and with
    /// more at the end.
    pub(crate) fn put_without(&self, keys: &[u8], more: &[u8], out: &mut Vec<u8>) {
        let mut kept = Vec::with_capacity(self.0.len() + more.len());
        // They were gone through when they were read.
        let _is_whole = self.each(|of| {
            if !keys.contains(&of.key) {
                kept.extend_from_slice(of.whole);
            }
            Ok(())
        });
        kept.extend_from_slice(more);
        put_variable(kept.len(), out);
        out.extend_from_slice(&kept);
    }

    /// Puts them behind their length, as they are.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        put_variable(self.0.len(), out);
        out.extend_from_slice(self.0);
    }
}

impl<'a> Property<'a> {
    /// Its value, where that is bytes behind their length.
    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        self.value.get(2..)
    }

    /// Its value, where that is a number of two bytes.
    pub(crate) fn number(&self) -> Option<u16> {
        self.value.try_into().ok().map(u16::from_be_bytes)
    }

    /// Its value, where that is a number of four bytes.
    pub(crate) fn long(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }
}

fn skip_value<'a>(key: u8, fields: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    let before = fields.rest();
    match key {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2a => drop(fields.byte()?),
        0x13 | 0x21..=0x23 => drop(fields.number()?),
        0x02 | 0x11 | 0x18 | 0x27 => drop(fields.take(4)?),
        0x0b => drop(fields.variable()?),
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => drop(fields.bytes()?),
        0x26 => {
            for _ in 0..2 {
                fields.bytes()?;
            }
        }
        _ => return Err(Malformed),
    }
    Ok(&before[..before.len() - fields.rest().len()])
}

pub(crate) fn put_variable(mut number: usize, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        out.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return;
        }
    }
}

/// Puts bytes behind their length. What has too many for one is of no field that was read.
pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    let length = bytes.len().min(usize::from(u16::MAX));
    out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(&bytes[..length]);
}
