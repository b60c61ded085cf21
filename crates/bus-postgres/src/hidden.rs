use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

/// A parameter that does not print: the library logs parameters at its finest level.
pub(crate) struct Hidden<T>(pub(crate) T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

type Encoded = Result<IsNull, Box<dyn StdError + Sync + Send>>;

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(&self, of: &Type, out: &mut BytesMut) -> Encoded {
        self.0.to_sql(of, out)
    }

    fn accepts(of: &Type) -> bool {
        T::accepts(of)
    }

    fn to_sql_checked(&self, of: &Type, out: &mut BytesMut) -> Encoded {
        self.0.to_sql_checked(of, out)
    }
}
