from corgi.tracking.wandb_sender import FINISH_LEAST_S, FINISH_TIMEOUT_S, patience_s


def test_a_server_that_hangs_costs_the_end_two_percent_or_a_few_seconds() -> None:
    assert patience_s("online", False, 100.0) == 2.0
    assert patience_s("online", True, 10.0) == FINISH_LEAST_S
    assert patience_s("online", True, 1000.0) == 20.0
    assert patience_s("online", True, 1e6) == FINISH_TIMEOUT_S
    assert patience_s("offline", False, 1.0) == FINISH_TIMEOUT_S
