use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

/// Below the ports that systems give to outgoing connections: a client that keeps dialling a stopped
/// server on one of those is now and then connected to itself, and then the server cannot come back.
/// Redis adds 10,000 for the port of its cluster bus, which is to stay below them too.
const PORTS: Range<u16> = 10_000..20_000;

/// How many ports are tried before the machine counts as full.
const ATTEMPTS: u32 = 200;

/// A loopback port for a server of one's own, who takes it by TCP. Nobody else is given it meanwhile,
/// also in another process, and while the server is down: the same port of UDP is held as a claim.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _claim: UdpSocket,
}

impl Port {
    /// One on which nobody listened a moment ago.
    pub(super) fn claim() -> io::Result<Self> {
        for _ in 0..ATTEMPTS {
            let number = fastrand::u16(PORTS);
            match Self::claim_this(number) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                claimed => return claimed,
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{ATTEMPTS} ports were taken")))
    }

    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    fn claim_this(number: u16) -> io::Result<Self> {
        let claim = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, number))?;
        Ok(Self { number, _claim: claim })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_port_can_be_listened_on_and_is_not_given_twice() {
        let port = Port::claim().unwrap();
        assert!(PORTS.contains(&port.number()));
        assert_eq!(Port::claim_this(port.number()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();

        let number = port.number();
        drop(port);
        assert_eq!(Port::claim_this(number).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        Port::claim_this(number).unwrap();
    }
}
