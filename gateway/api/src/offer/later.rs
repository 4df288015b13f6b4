//! `PUT /v1/sessions/ID`: a later offer of a WebRTC client, or a restart of its ICE.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use evenkeel_config::token::ClientDirection;
use evenkeel_control::{IngressAnswer, LaterOffer, LaterStreams};
use serde::{Deserialize, Serialize};

use super::webrtc::WebrtcOffer;
use crate::context::ApiState;
use crate::error::{ApiError, ApiErrorCode};
use crate::object::object;
use crate::request::{session_id, strict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaterBody {
    webrtc: LaterWebrtcBody,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaterWebrtcBody {
    /// SDP (RFC 8866).
    offer: Option<String>,
    /// Default: both directions, as far as the offer has them.
    direction: Option<ClientDirection>,
    /// In place of an offer: the client's new user fragment, which restarts ICE.
    ufrag: Option<String>,
}

pub(crate) async fn change(
    State(shared): ApiState,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<impl Serialize>, ApiError> {
    let session = session_id(&id)?;
    let (body, _share) = shared.read(body).await?;
    let LaterBody { webrtc: LaterWebrtcBody { offer, direction, ufrag } } = strict(&body)?;
    let (sdp, ufrag) = match (offer, ufrag) {
        (Some(offer), None) => {
            let sdp = WebrtcOffer::parse(&offer, direction)?;
            let ufrag = sdp.ice.ufrag.clone();
            (Some(sdp), ufrag)
        }
        (None, Some(_)) if direction.is_some() => {
            let wrong = "is given beside `ufrag`, which changes no direction";
            return Err(ApiError::field("webrtc.direction", wrong));
        }
        (None, Some(ufrag)) => (None, checked(ufrag)?),
        _ => return Err(ApiError::field("webrtc", "expected either `offer` or `ufrag`")),
    };
    let streams =
        sdp.as_ref().map(|sdp| LaterStreams { media: sdp.media().into(), keying: sdp.keying() });
    let later = LaterOffer { session, ufrag: ufrag.into(), streams };
    let answer = shared.ask(&id, shared.handle.renegotiate(Box::new(later))).await?;
    shared.confirm().await?;
    let IngressAnswer::Udp { addresses, ice: Some(ice), .. } = answer else {
        return Err(ApiError::new(ApiErrorCode::Conflict, "the session has no ICE"));
    };
    let answer = sdp.map(|sdp| sdp.answer(session, &addresses, &ice).as_str().to_owned());
    let restart = answer.is_none().then(|| {
        object! { ufrag: ice.ufrag.clone(), password: ice.password.clone(), addresses: addresses }
    });
    Ok(Json(object! {
        id: session.to_string(),
        webrtc: object! { answer?: answer, ice?: restart },
    }))
}

/// Checks the form of RFC 8839, section 5.4.
fn checked(ufrag: String) -> Result<String, ApiError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    if (4..=256).contains(&ufrag.len()) && ufrag.bytes().all(is_plain) {
        return Ok(ufrag);
    }
    let expected = "4 to 256 letters, digits, `+` or `/`";
    Err(ApiError::field("webrtc.ufrag", format!("expected {expected}")))
}
