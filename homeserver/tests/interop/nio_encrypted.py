"""Two people talk in an encrypted room, and the server restarts in between. The client is matrix-nio with real Olm.

Run as: nio_encrypted.py BASE_URL CA_FILE FOLDER. The server must let people register. A line `@restart` on standard
output asks whoever runs this to restart the server, and to answer with a line on standard input when it is done.
"""

import asyncio
import ssl
import sys
import uuid

from nio import (
    AsyncClient,
    AsyncClientConfig,
    MatrixRoom,
    MegolmEvent,
    MessageDirection,
    RedactedEvent,
    RedactionEvent,
    RoomMessageText,
)

# The longest that anything may take to arrive, in seconds.
PATIENCE = 60
PASSWORD = "correct horse battery staple"


def check(response):
    """Returns the response, or stops the test when it is an error."""
    name = type(response).__name__
    if name.endswith("Error") or name.endswith("ErrorResponse"):
        raise AssertionError(f"{name}: {response}")
    return response


class Person:
    """A user with one device, who remembers all that could be decrypted and all that could not."""

    def __init__(self, base_url, ca_file, folder, name):
        self.base_url, self.folder = base_url, folder
        self.name = f"{name}-{uuid.uuid4().hex[:8]}"
        self.tls = ssl.create_default_context(cafile=ca_file)
        self.client = None
        self.read, self.redacted, self.unreadable = [], set(), []

    def new_client(self, user):
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True, max_timeouts=10)
        return AsyncClient(self.base_url, user, store_path=self.folder, config=config, ssl=self.tls)

    async def register_and_log_in(self):
        registering = self.new_client(self.name)
        check(await registering.register(self.name, PASSWORD, device_name="registered"))
        check(await registering.logout())
        await registering.close()
        self.client = self.new_client(self.name)
        check(await self.client.login(PASSWORD, device_name="laptop"))
        self.client.add_event_callback(self.on_message, RoomMessageText)
        self.client.add_event_callback(self.on_unreadable, MegolmEvent)
        self.client.add_event_callback(self.on_redaction, RedactionEvent)
        await self.client.sync(timeout=0, full_state=True)
        check(await self.client.keys_upload())

    async def on_message(self, room: MatrixRoom, event: RoomMessageText):
        assert event.decrypted, f"{event.body} came in the clear"
        self.read.append((event.sender, event.body, event.event_id))

    async def on_unreadable(self, room: MatrixRoom, event: MegolmEvent):
        self.unreadable.append(event.event_id)

    async def on_redaction(self, room: MatrixRoom, event: RedactionEvent):
        self.redacted.add(event.redacts)

    async def step(self, timeout=10_000):
        """One /sync, and the key requests that follow from it."""
        client = self.client
        check(await client.sync(timeout=timeout))
        await client.send_to_device_messages()
        if client.should_upload_keys:
            check(await client.keys_upload())
        if client.should_query_keys:
            check(await client.keys_query())
        if client.should_claim_keys:
            check(await client.keys_claim(client.get_users_for_key_claiming()))

    async def until(self, what, condition):
        async def steps():
            while not condition():
                await self.step()

        try:
            await asyncio.wait_for(steps(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"{self.name} waited in vain for {what}; read {self.read}") from None

    async def say(self, room_id, text):
        content = {"msgtype": "m.text", "body": text}
        sent = await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        return check(sent).event_id

    async def hear(self, *texts):
        await self.until(f"{texts}", lambda: all(any(text == body for _, body, _ in self.read) for text in texts))


async def exchange(alice, bob, room_id, round_):
    """Five messages each way, in turns; both must be able to read all of them."""
    said = []
    for number in range(5):
        for speaker, listener in ((alice, bob), (bob, alice)):
            text = f"{round_} {number} by {speaker.name}"
            said.append(await speaker.say(room_id, text))
            await listener.hear(text)
    return said


def members(person, room_id):
    """Who has joined the room, as far as the person's client knows."""
    room = person.client.rooms.get(room_id)
    return set(room.users) - set(room.invited_users) if room else set()


async def restart_server():
    print("@restart", flush=True)
    answer = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    assert answer.strip() == "done", f"the restart failed: {answer!r}"


async def history(person, room_id):
    """All events of the room from its end to its beginning, as the server has them."""
    events, token = [], None
    while True:
        page = check(await person.client.room_messages(room_id, token, direction=MessageDirection.back, limit=20))
        events += page.chunk
        token = page.end
        if token is None or not page.chunk:
            return events


async def main(base_url, ca_file, folder):
    alice = Person(base_url, ca_file, folder, "alice")
    bob = Person(base_url, ca_file, folder, "bob")
    try:
        await asyncio.gather(alice.register_and_log_in(), bob.register_and_log_in())
        encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        created = await alice.client.room_create(invite=[bob.client.user_id], initial_state=[encryption])
        room_id = check(created).room_id
        await bob.until("the invite", lambda: room_id in bob.client.invited_rooms)
        check(await bob.client.join(room_id))
        await bob.until("the room", lambda: room_id in bob.client.rooms)
        await alice.until("bob's join", lambda: bob.client.user_id in members(alice, room_id))
        for person in (alice, bob):
            assert person.client.rooms[room_id].encrypted, "the room is not encrypted"

        said = await exchange(alice, bob, room_id, "before")
        check(await alice.client.room_redact(room_id, said[0], reason="a test"))
        await bob.until("the redaction", lambda: said[0] in bob.redacted)

        await restart_server()

        said += await exchange(alice, bob, room_id, "after")
        check(await bob.client.room_redact(room_id, said[-1]))
        await alice.until("the second redaction", lambda: said[-1] in alice.redacted)

        for person in (alice, bob):
            assert not person.unreadable, f"{person.name} could not decrypt {person.unreadable}"
        # Nothing is lost and nothing comes twice: neither in what was synced nor in what is stored.
        for speaker, listener in ((alice, bob), (bob, alice)):
            heard = [event_id for sender, _, event_id in listener.read if sender == speaker.client.user_id]
            own = said[0::2] if speaker is alice else said[1::2]
            assert heard == own, f"{listener.name} heard {heard} of {own}"
        stored = [event.event_id for event in reversed(await history(bob, room_id))]
        assert [event_id for event_id in stored if event_id in said] == said, f"stored are {stored} of {said}"
        redacted = {event.event_id for event in await history(alice, room_id) if isinstance(event, RedactedEvent)}
        assert {said[0], said[-1]} <= redacted, f"redacted are {redacted}"
        print(f"{len(said)} encrypted messages were read by both")
    finally:
        for person in (alice, bob):
            if person.client:
                await person.client.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
