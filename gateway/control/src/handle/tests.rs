use super::*;

#[tokio::test]
async fn request_that_release_drops_is_replaced() {
    let (handle, mut requests) = Handle::new(Arc::default());
    let waiting = tokio::spawn({
        let handle = handle.clone();
        async move { handle.status().await }
    });
    let Some(ControlRequest::Status(held)) = requests.recv().await else { panic!("no status") };
    let releasing = tokio::spawn({
        let handle = handle.clone();
        async move { handle.release().await }
    });
    let Some(ControlRequest::Release(done)) = requests.recv().await else { panic!("no release") };
    drop(held);
    done.send(()).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err(), ControlError::Replaced);
    assert_eq!(releasing.await.unwrap(), Ok(()));
    drop(requests);
    assert_eq!(handle.regions().await.unwrap_err(), ControlError::Replaced, "after its end");
}

#[tokio::test]
async fn request_that_control_drops_is_unavailable() {
    let (handle, requests) = Handle::new(Arc::default());
    drop(requests);
    assert_eq!(handle.regions().await.unwrap_err(), ControlError::Unavailable);
}
