//! (being built)

/// An error code of the Kafka protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ErrorCode(pub i16);

impl ErrorCode {
    /// The kind of reaction that this error calls for, after KIP-1050.
    pub fn class(self) -> crate::ErrorClass {
        crate::ErrorClass::Fatal
    }
}
impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}
