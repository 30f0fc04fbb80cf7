//! The 20-byte header (RFC 8489 section 5).

/// Length of a STUN header in bytes.
pub const HEADER_LEN: usize = 20;

/// The fixed value of the cookie field (RFC 8489 section 5).
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The 96-bit transaction id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Message class (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for a response.
    Request,
    /// Asks for none.
    Indication,
    /// A success response.
    Success,
    /// An error response.
    Error,
}

/// Message method: 12 bits (RFC 8489 section 18.2, RFC 8656 section 17, RFC 6062
/// section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(pub u16);

impl Method {
    /// Binding (RFC 8489).
    pub const BINDING: Self = Self(0x001);
    /// Allocate (RFC 8656 section 7).
    pub const ALLOCATE: Self = Self(0x003);
    /// Refresh (RFC 8656 section 8).
    pub const REFRESH: Self = Self(0x004);
    /// Send indication (RFC 8656 section 11).
    pub const SEND: Self = Self(0x006);
    /// Data indication (RFC 8656 section 11).
    pub const DATA: Self = Self(0x007);
    /// CreatePermission (RFC 8656 section 10).
    pub const CREATE_PERMISSION: Self = Self(0x008);
    /// ChannelBind (RFC 8656 section 12).
    pub const CHANNEL_BIND: Self = Self(0x009);
    /// Connect (RFC 6062 section 5.2).
    pub const CONNECT: Self = Self(0x00A);
    /// ConnectionBind (RFC 6062 section 5.4).
    pub const CONNECTION_BIND: Self = Self(0x00B);
    /// ConnectionAttempt indication (RFC 6062 section 5.3).
    pub const CONNECTION_ATTEMPT: Self = Self(0x00C);

    /// The name of the method in the RFCs; `"other"` for methods this server does not have.
    pub fn name(self) -> &'static str {
        match self {
            Self::BINDING => "Binding",
            Self::ALLOCATE => "Allocate",
            Self::REFRESH => "Refresh",
            Self::SEND => "Send",
            Self::DATA => "Data",
            Self::CREATE_PERMISSION => "CreatePermission",
            Self::CHANNEL_BIND => "ChannelBind",
            Self::CONNECT => "Connect",
            Self::CONNECTION_BIND => "ConnectionBind",
            Self::CONNECTION_ATTEMPT => "ConnectionAttempt",
            _ => "other",
        }
    }
}

/// Interleaves method and class bits into the first 16 bits of a message.
pub(super) fn join(method: Method, class: Class) -> u16 {
    let m = method.0;
    let class = match class {
        Class::Request => 0x0000,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    (m & 0x000f) | ((m & 0x0070) << 1) | ((m & 0x0f80) << 2) | class
}

/// The reverse of [`join`]; `ty` has its two top bits clear.
pub(super) fn split(ty: u16) -> (Method, Class) {
    let method = (ty & 0x000f) | ((ty & 0x00e0) >> 1) | ((ty & 0x3e00) >> 2);
    let class = match ty & 0x0110 {
        0x0000 => Class::Request,
        0x0010 => Class::Indication,
        0x0100 => Class::Success,
        _ => Class::Error,
    };
    (Method(method), class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_split_and_join() {
        for ty in 0..0x4000u16 {
            let (method, class) = split(ty);
            assert_eq!(join(method, class), ty);
        }
    }

    #[test]
    fn well_known_types() {
        assert_eq!(join(Method::BINDING, Class::Request), 0x0001);
        assert_eq!(join(Method::BINDING, Class::Success), 0x0101);
        assert_eq!(join(Method::ALLOCATE, Class::Error), 0x0113);
        assert_eq!(join(Method::SEND, Class::Indication), 0x0016);
        assert_eq!(join(Method::DATA, Class::Indication), 0x0017);
    }
}
