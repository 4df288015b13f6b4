//! Connectivity checks of ICE (RFC 8445).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use evenkeel_control::{IceAnswer, IngressAnswer, SessionAnswer};
use evenkeel_lab::client::AnswerTransport;
use evenkeel_media::stun::{
    BindingBuilder, BindingOutcome, Response, StunKey, Transaction, Username, is_stun,
};

use super::Phone;

pub(crate) struct Credentials {
    pub(crate) ufrag: String,
    pub(crate) password: String,
}

impl Credentials {
    pub(crate) fn of(opened: &SessionAnswer) -> Credentials {
        let IngressAnswer::Udp { ice: Some(IceAnswer { ufrag, password, .. }), .. } =
            &opened.ingress
        else {
            panic!("{opened:?}")
        };
        Credentials { ufrag: ufrag.to_string(), password: password.to_string() }
    }

    /// Reads the address of the gateway and the credentials in the SDP of an answer.
    pub(crate) fn in_answer(sdp: &str) -> (SocketAddr, Credentials) {
        let AnswerTransport { gateway, ice, .. } =
            AnswerTransport::parse(sdp).unwrap_or_else(|| panic!("{sdp}"));
        (gateway, Credentials { ufrag: ice.ufrag, password: ice.password })
    }

    /// Sends a new check from this phone and returns it.
    pub(crate) fn check(&self, phone: &Phone, nominate: Nominate) -> Vec<u8> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut transaction = [0; 12];
        transaction[..8].copy_from_slice(&number);
        let mut check = Vec::new();
        BindingBuilder {
            transaction: Transaction(transaction),
            username: Some(Username { server_ufrag: &self.ufrag, client_ufrag: "phone" }),
            key: Some(&StunKey::new(&self.password)),
            priority: Some(1),
            controlling: Some(phone.number),
            use_candidate: nominate == Nominate::Yes,
        }
        .write(&mut check);
        phone.send(&check);
        check
    }

    /// The mapped address of the first answer to a check.
    pub(crate) fn mapped(&self, phone: &Phone) -> Option<SocketAddr> {
        let answers = phone.other.iter().filter(|bytes| is_stun(bytes));
        answers.filter_map(|bytes| Response::parse(bytes).ok()).find_map(|response| {
            response.message.verify(&StunKey::new(&self.password)).unwrap();
            match response.outcome {
                BindingOutcome::Mapped(address) => Some(address),
                BindingOutcome::Refused(_) => None,
            }
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Nominate {
    Yes,
    No,
}
