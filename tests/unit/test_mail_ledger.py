"""The ledger of sent mails: of many processes one sends, whatever happens to any of them."""

import multiprocessing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, inspect, select

from services.database import engine, reading, writing
from services.mail_ledger import KEPT, MailBeingSent, claim, give_back, record_sent, renew
from services.models import MailEntry
from tests.unit.test_database import in_processes

LEASE = timedelta(minutes=1)
MAIL = "<task-1@localhost>"

pytestmark = pytest.mark.usefixtures("any_shop")


def claimed(lease: timedelta = LEASE) -> str:
    owner = claim(MAIL, lease)
    assert owner
    return owner


def let_pass(time: timedelta) -> None:
    """Make all claims older."""
    with writing() as session:
        for entry in session.scalars(select(MailEntry)):
            entry.claimed_at -= time


def entries() -> int:
    with reading() as session:
        return session.scalar(select(func.count()).select_from(MailEntry)) or 0


def test_a_mail_is_claimed_once_and_after_it_was_sent_never_again():
    owner = claimed()
    with pytest.raises(MailBeingSent, match="task-1"):
        claim(MAIL, LEASE)
    record_sent(MAIL, owner)
    assert claim(MAIL, LEASE) is None
    let_pass(2 * LEASE)
    assert claim(MAIL, LEASE) is None


def test_a_claim_that_was_given_back_can_be_claimed_at_once():
    give_back(MAIL, claimed())
    assert claimed()


def test_a_claim_is_taken_over_only_when_its_lease_has_ended():
    claimed()
    let_pass(LEASE - timedelta(seconds=30))
    with pytest.raises(MailBeingSent):
        claim(MAIL, LEASE)
    let_pass(timedelta(seconds=31))
    assert claimed()


def test_renewing_a_claim_begins_its_lease_anew():
    owner = claimed()
    let_pass(LEASE)
    assert renew(MAIL, owner)
    with pytest.raises(MailBeingSent):
        claim(MAIL, LEASE)


def test_who_lost_a_claim_can_neither_renew_it_nor_give_it_back():
    first = claimed()
    let_pass(2 * LEASE)
    second = claimed()
    assert not renew(MAIL, first)
    give_back(MAIL, first)
    assert renew(MAIL, second)


def test_a_mail_that_was_sent_is_not_given_back():
    owner = claimed()
    record_sent(MAIL, owner)
    give_back(MAIL, owner)
    assert not renew(MAIL, owner)
    assert claim(MAIL, LEASE) is None


def test_a_mail_that_was_sent_by_a_claim_that_is_gone_is_remembered():
    first = claimed()
    let_pass(2 * LEASE)
    give_back(MAIL, claimed())
    record_sent(MAIL, first)  # the server was slow, and accepted it after all
    assert claim(MAIL, LEASE) is None


def test_entries_are_forgotten_when_no_message_can_come_again():
    record_sent(MAIL, claimed())
    let_pass(KEPT + timedelta(hours=1))
    claim("<task-2@localhost>", LEASE)
    assert entries() == 1
    assert claimed()


def test_of_many_processes_one_gets_each_claim(tmp_path: Path):
    mails = [f"<task-{number}@localhost>" for number in range(30)]
    wins = multiprocessing.get_context("fork").SimpleQueue()

    def claim_all(number: int) -> None:
        won = 0
        for mail in mails:
            try:
                won += claim(mail, LEASE) is not None
            except MailBeingSent:
                continue
        wins.put(won)

    in_processes(4, claim_all)
    assert sum(wins.get() for _ in range(4)) == len(mails)
    assert entries() == len(mails)


def test_of_many_processes_one_takes_over_a_claim_whose_lease_has_ended():
    claimed()
    let_pass(2 * LEASE)
    wins = multiprocessing.get_context("fork").SimpleQueue()

    def take_over(number: int) -> None:
        try:
            wins.put(claim(MAIL, LEASE) is not None)
        except MailBeingSent:
            wins.put(False)

    in_processes(4, take_over)
    assert sum(wins.get() for _ in range(4)) == 1


def test_the_time_of_an_entry_is_looked_up_by_an_index():
    indexes = [index["column_names"] for index in inspect(engine()).get_indexes("sent_mails")]
    assert indexes == [["claimed_at"]]
