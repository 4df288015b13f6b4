use super::*;

#[test]
fn secrets_do_not_reach_the_parser() {
    let text = "v=0\r\nk=clear:SECRET1\r\na=ICE-pwd:SECRET2\r\nm=audio 9 RTP/SAVP 0\r\nk=clear:SECRET3\r\n\
                a=key-mgmt:mikey SECRET4\r\na=crypto:1 SECRET5\r\na=crypto SECRET6\r\na=crypto:2 SECRET7\n";
    let description = Description::parse(text.as_bytes()).unwrap();
    let (session, all) = description.session();
    assert!(!format!("{session:?}").contains("SECRET"), "{session:?}");
    assert_eq!(all.secrets("ice-pwd").collect::<Vec<_>>(), ["SECRET2"]);
    let (_, own) = description.sections().next().unwrap();
    assert_eq!(own.secrets("crypto").collect::<Vec<_>>(), ["1 SECRET5", "", "2 SECRET7"]);
    assert_eq!(own.secrets("ice-pwd").count(), 0);
}

#[test]
fn lines_after_a_secret_keep_their_number() {
    let text = b"v=0\r\na=crypto:1 SECRET\r\nnone\r\n";
    let error = Description::parse(text).map(drop).unwrap_err().to_string();
    assert!(error.contains("line 3"), "{error}");
}
