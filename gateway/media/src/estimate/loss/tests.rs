use super::*;

#[test]
fn windows_have_packets_and_time() {
    let mut window = LossWindow::default();
    assert!(window.close(0).is_none());
    (0..15).for_each(|_| window.note_arrived());
    (0..4).for_each(|_| window.note_lost());
    assert!(window.close(200_000).is_none(), "19 packets");
    window.note_lost();
    window.note_late();
    assert!(window.close(199_999).is_none(), "too early");
    let loss = window.close(200_000).unwrap();
    assert_eq!((loss.packets, loss.share()), (20, 0.2));
    (0..40).for_each(|_| window.note_arrived());
    window.note_late();
    assert!(window.close(399_999).is_none());
    assert_eq!(window.close(400_000).unwrap().share(), 0.0, "it was lost in the window before");
}

#[test]
fn loss_by_chance_is_tolerated() {
    let mut tolerance = LossTolerance::default();
    assert!(!tolerance.is_exceeded(0.1, f64::INFINITY));
    // The standard deviation of 10 % among 100 packets is 3 %.
    assert!(!tolerance.is_exceeded(0.18, 100.0));
    assert!(tolerance.is_exceeded(0.2, 100.0));
}

#[test]
fn loss_that_a_lower_rate_lessens_is_congestion() {
    let mut tolerance = LossTolerance::default();
    assert!(tolerance.is_exceeded(0.4, 1e3));
    assert!(!tolerance.is_exceeded(0.4, 1e3) && tolerance.is_trying());
    assert!(tolerance.is_exceeded(0.2, 1e3), "half of it is left");
    assert!(!tolerance.is_exceeded(0.2, 1e3));
    assert!(!tolerance.is_exceeded(0.0, 1e3) && !tolerance.is_trying());
}

#[test]
fn loss_that_a_lower_rate_leaves_is_random() {
    let mut tolerance = LossTolerance::default();
    assert!(tolerance.is_exceeded(0.2, 1e3));
    for _ in 0..10 {
        assert!(!tolerance.is_exceeded(0.2, 1e3));
    }
    assert!(!tolerance.is_exceeded(0.3, 1e3));
    assert!(tolerance.is_exceeded(0.4, 1e3), "more than the random loss");
    let mut tolerance = LossTolerance::default();
    for loss in [0.2, 0.2, 0.2, 0.0] {
        tolerance.is_exceeded(loss, 1e3);
    }
    assert!(tolerance.is_exceeded(0.2, 1e3), "it had ended");
}
