"""A username belongs to one person, whoever else comes to have it at the provider."""

import pytest

from hubgate.errors import ClientFault
from hubgate.web.usernames import Usernames
from tests.web.people import KEYRING, person


@pytest.fixture
def usernames(store):
    return Usernames(store, KEYRING)


async def test_a_renamed_user_who_takes_anothers_name_is_refused(usernames):
    await usernames.claim(person("alice", subject="first"))
    await usernames.claim(person("alice", subject="first"))
    with pytest.raises(ClientFault) as refused:
        await usernames.claim(person("alice", subject="second"))
    assert (refused.value.code, refused.value.status) == ("username_taken", 403)


async def test_an_operator_can_release_a_name(usernames):
    assert not await usernames.release("alice")
    await usernames.claim(person("alice", subject="first"))
    assert await usernames.release("alice")
    await usernames.claim(person("alice", subject="second"))
    with pytest.raises(ClientFault):
        await usernames.claim(person("alice", subject="first"))
