import pytest

from heldout.core.job_time import Estimate, JobPart, JobTime, in_words

PARTS = (
    JobPart("search", 60.0, 300, at_most=True),
    JobPart("training", 100.0, 500, at_most=True),
    JobPart("control", 80.0, 500, beside="the control"),
    JobPart("test", 30.0, 3),
)


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def job(clock):
    return JobTime(PARTS, now=clock)


def test_what_goes_on_beside_others_takes_no_time_of_its_own(job, clock):
    assert job.left == 190.0
    assert JobTime([PARTS[1], JobPart("control", 150.0, 1, beside="the control")]).left > 149


def test_time_left_is_of_the_whole_job_from_its_first_second(job, clock):
    job.begin("search")
    clock.seconds = 30.0
    job.advance(150)
    assert job.left == pytest.approx(160.0)
    assert job.share == pytest.approx(30 / 190)
    clock.seconds = 40.0
    assert job.left == pytest.approx(150.0)  # goes on while nothing is told


def test_a_part_that_ends_early_takes_its_rest_with_it(job, clock):
    job.begin("training")
    clock.seconds = 20.0
    job.advance(100)
    assert job.at_most
    job.begin("test")
    # The control goes on meanwhile: 80 s of it are left, of which the test covers 30.
    assert job.left == pytest.approx(80.0)
    assert not job.at_most
    job.advance(500, "the control")
    assert job.left == pytest.approx(30.0)


def test_what_is_left_is_corrected_by_the_speed_so_far(job, clock):
    job.begin("search")
    clock.seconds = 60.0
    job.advance(150)  # as long as all of the search was to take
    assert job.left == pytest.approx(2 * 160.0)


def test_a_resumed_job_counts_what_it_has_taken(clock):
    job = JobTime(PARTS, spent=60.0, now=clock)
    job.begin("training")
    job.advance(250)
    assert job.left == pytest.approx((50.0 + 30.0) * 60.0 / 50.0)


def test_what_is_no_part_of_the_job_changes_nothing(job):
    job.begin("training")
    before = job.left
    job.begin("dinner")
    assert (job.current, job.left) == ("training", pytest.approx(before, abs=0.1))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "10 seconds"),
        (41, "45 seconds"),
        (91, "2 minutes"),
        (3540, "59 minutes"),
        (7900, "2 h 20 min"),
        (7200, "2 h"),
    ],
)
def test_words_are_as_sure_as_an_estimate(seconds, words):
    assert in_words(seconds) == words


def test_an_estimate_says_what_is_in_it():
    words = Estimate(PARTS, 1.24, is_timed=True).words
    assert words.startswith(
        "at most 4 minutes and 1.2 GB of memory: search 60 seconds, training 2 min"
    )
    assert "control 80 seconds (at the same time)" in words
    found = Estimate(PARTS, 1.24, is_timed=True)
    assert Estimate.from_json(found.to_json()) == found
    assert Estimate(PARTS, 1.24, is_timed=False).words == "less than a minute and 1.2 GB of memory"
