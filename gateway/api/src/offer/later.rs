//! `PUT /v1/sessions/ID`: a later offer of a WebRTC client, or a restart of its ICE.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use evenkeel_contract::errors::ErrorCode;
use evenkeel_contract::offers::{
    IceRestart, LaterAnswer, LaterRequest, LaterSdp, LaterWebrtcAnswer,
};
use evenkeel_control::{IngressAnswer, LaterOffer, LaterStreams};

use super::webrtc::WebrtcOffer;
use crate::context::ApiState;
use crate::error::ApiError;
use crate::request::{session_id, strict};

pub(crate) async fn change(
    State(shared): ApiState,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<LaterAnswer>, ApiError> {
    let session = session_id(&id)?;
    let (body, _share) = shared.read(body).await?;
    let LaterRequest { webrtc: LaterSdp { offer, direction, ufrag } } = strict(&body)?;
    let (sdp, ufrag) = match (offer, ufrag) {
        (Some(offer), None) => {
            let sdp = WebrtcOffer::parse(&offer, direction.map(super::direction))?;
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
        return Err(ApiError::new(ErrorCode::Conflict, "the session has no ICE"));
    };
    let answer = sdp.map(|sdp| sdp.answer(session, &addresses, &ice).as_str().to_owned());
    let restart = answer.is_none().then(|| IceRestart {
        ufrag: ice.ufrag.to_string(),
        password: ice.password.to_string(),
        addresses,
    });
    let webrtc = LaterWebrtcAnswer { answer, ice: restart };
    Ok(Json(LaterAnswer { id: session.to_string(), webrtc }))
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
