//! Zxids are the positions of the transaction log, and the only ones.

use crate::base::Zxid;
use crate::log::position::Position;

impl From<Zxid> for Position {
    fn from(zxid: Zxid) -> Position {
        Position(zxid.0)
    }
}

impl From<Position> for Zxid {
    fn from(position: Position) -> Zxid {
        Zxid(position.0)
    }
}
