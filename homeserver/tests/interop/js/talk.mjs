// Two people talk in a room without encryption, and the server restarts in between. The client is matrix-js-sdk.
//
// Run as: node talk.mjs BASE_URL, with the server's CA in NODE_EXTRA_CA_CERTS. The server must let people register. A
// line `@restart` on standard output asks whoever runs this to restart the server, and to answer with a line on standard
// input when it is done.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";

import * as sdk from "matrix-js-sdk";

// The longest that anything may take to arrive, in milliseconds.
const PATIENCE = 60_000;
const PASSWORD = "correct horse battery staple";
// More than one page of history, with the pages as small as below.
const MESSAGES_EACH = 30;
const PAGE = 10;

const baseUrl = process.argv[2];
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// Everything that may change what a condition of `until` looks at.
const CHANGES = [
    sdk.ClientEvent.Sync,
    sdk.ClientEvent.Room,
    sdk.RoomEvent.Timeline,
    sdk.RoomEvent.MyMembership,
    sdk.RoomEvent.Receipt,
    sdk.RoomEvent.Redaction,
    sdk.RoomEvent.UnreadNotifications,
    sdk.RoomMemberEvent.Membership,
    sdk.RoomMemberEvent.Typing,
];

class Person {
    constructor(name) {
        this.name = `${name}-${randomUUID().slice(0, 8)}`;
        this.arrived = [];
    }

    async registerAndLogIn() {
        const nobody = sdk.createClient({ baseUrl });
        const registration = { username: this.name, password: PASSWORD };
        try {
            await nobody.registerRequest(registration);
        } catch (challenge) {
            const auth = { type: "m.login.dummy", session: challenge.data.session };
            await nobody.registerRequest({ ...registration, auth });
        }
        const { flows } = await nobody.loginFlows();
        assert(flows.some(({ type }) => type === "m.login.password"));
        const login = await nobody.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: this.name },
            password: PASSWORD,
        });
        this.id = login.user_id;
        this.client = sdk.createClient({
            baseUrl,
            userId: login.user_id,
            deviceId: login.device_id,
            accessToken: login.access_token,
            timelineSupport: true,
        });
        this.client.on(sdk.RoomEvent.Timeline, (event, _room, toStart, _removed, { liveEvent }) => {
            const another = event.getSender() !== this.id && event.getType() === "m.room.message";
            if (another && liveEvent && !toStart) this.arrived.push(event.getId());
        });
        await this.client.startClient({ initialSyncLimit: PAGE });
        await this.until("the first sync", () => this.client.isInitialSyncComplete());
    }

    /** Waits until the condition holds, looking whenever something has changed. */
    until(what, condition) {
        return new Promise((resolve, reject) => {
            const look = () => {
                if (!condition()) return;
                end();
                resolve();
            };
            const timer = setTimeout(() => {
                end();
                reject(new Error(`${this.name} waited in vain for ${what}`));
            }, PATIENCE);
            const end = () => {
                clearTimeout(timer);
                for (const change of CHANGES) this.client.off(change, look);
            };
            for (const change of CHANGES) this.client.on(change, look);
            look();
        });
    }

    async say(roomId, body, more = {}) {
        const { event_id } = await this.client.sendEvent(roomId, "m.room.message", { msgtype: "m.text", body, ...more });
        return event_id;
    }

    has(roomId, eventId) {
        return this.client.getRoom(roomId)?.findEventById(eventId) !== undefined;
    }

    hear(roomId, eventId) {
        return this.until(`the event ${eventId}`, () => this.has(roomId, eventId));
    }

    unread(roomId, type = sdk.NotificationCountType.Total) {
        return this.client.getRoom(roomId).getUnreadNotificationCount(type);
    }

    /** Whether the other one's read receipt is on this event, as this one's client knows it. */
    seesReceipt(roomId, reader, eventId) {
        return this.client.getRoom(roomId).getEventReadUpTo(reader.id, true) === eventId;
    }
}

async function makeRoom(alice, bob) {
    const { room_id: roomId } = await alice.client.createRoom({
        preset: sdk.Preset.TrustedPrivateChat,
        name: "A room for two",
        invite: [bob.id],
        is_direct: true,
    });
    await bob.until("the invite", () => bob.client.getRoom(roomId)?.getMyMembership() === "invite");
    await bob.client.joinRoom(roomId);
    await bob.until("the room", () => bob.client.getRoom(roomId)?.getMyMembership() === "join");
    await alice.until("bob's join", () => alice.client.getRoom(roomId)?.getMember(bob.id)?.membership === "join");
    return roomId;
}

async function talk(alice, bob, roomId, round) {
    const said = [];
    for (let number = 0; number < MESSAGES_EACH; number++) {
        for (const [speaker, listener] of [[alice, bob], [bob, alice]]) {
            const eventId = await speaker.say(roomId, `${round} ${number} by ${speaker.name}`);
            said.push(eventId);
            await listener.hear(roomId, eventId);
        }
    }
    return said;
}

async function type(alice, bob, roomId) {
    const typing = () => alice.client.getRoom(roomId).getMember(bob.id).typing;
    await bob.client.sendTyping(roomId, true, 30_000);
    await alice.until("bob's typing", typing);
    await bob.client.sendTyping(roomId, false, 30_000);
    await alice.until("the end of bob's typing", () => !typing());
}

async function readAndCount(alice, bob, roomId, newest) {
    const said = [];
    const read = async (eventId) => {
        await bob.client.sendReadReceipt(bob.client.getRoom(roomId).findEventById(eventId));
        await alice.until("bob's receipt", () => alice.seesReceipt(roomId, bob, eventId));
        await bob.until("no unread message", () => bob.unread(roomId) === 0);
    };
    await read(newest);
    for (const number of [1, 2, 3]) {
        said.push(await alice.say(roomId, `unread ${number}`));
        await bob.hear(roomId, said.at(-1));
    }
    await bob.until("three unread messages", () => bob.unread(roomId) === 3);
    await read(said.at(-1));
    said.push(await alice.say(roomId, "You are meant.", { "m.mentions": { user_ids: [bob.id] } }));
    await bob.hear(roomId, said.at(-1));
    const highlights = () => bob.unread(roomId, sdk.NotificationCountType.Highlight);
    await bob.until("a highlight", () => bob.unread(roomId) === 1 && highlights() === 1);
    await read(said.at(-1));
    assert.equal(highlights(), 0);
    return said;
}

async function redact(alice, bob, roomId, eventId) {
    await alice.client.redactEvent(roomId, eventId, undefined, { reason: "a test" });
    await bob.until("the redaction", () => bob.client.getRoom(roomId).findEventById(eventId)?.isRedacted());
}

async function restartServer() {
    process.stdout.write("@restart\n");
    const { value } = await input.next();
    assert.equal(value?.trim(), "done", "the restart failed");
}

/** All events of the room as a new client finds them, paging back to the start. */
async function history(person, roomId) {
    const client = sdk.createClient({
        baseUrl,
        userId: person.id,
        deviceId: person.client.getDeviceId(),
        accessToken: person.client.getAccessToken(),
        timelineSupport: true,
    });
    const prepared = new Promise((resolve) => {
        client.on(sdk.ClientEvent.Sync, (state) => state === "PREPARED" && resolve());
    });
    await client.startClient({ initialSyncLimit: PAGE });
    await prepared;
    const room = client.getRoom(roomId);
    while (room.oldState.paginationToken !== null) {
        await client.scrollback(room, PAGE);
    }
    client.stopClient();
    return room.getLiveTimeline().getEvents();
}

const alice = new Person("alice");
const bob = new Person("bob");
await Promise.all([alice.registerAndLogIn(), bob.registerAndLogIn()]);
const roomId = await makeRoom(alice, bob);
const said = await talk(alice, bob, roomId, "before");
await type(alice, bob, roomId);
said.push(...(await readAndCount(alice, bob, roomId, said.at(-1))));
await redact(alice, bob, roomId, said[0]);

await restartServer();

said.push(...(await talk(alice, bob, roomId, "after")));
await type(alice, bob, roomId);
said.push(...(await readAndCount(alice, bob, roomId, said.at(-1))));
await redact(alice, bob, roomId, said.at(-1));

const stored = await history(bob, roomId);
assert.equal(stored[0].getType(), "m.room.create", "the history does not begin with the room's creation");
// Nothing is lost, nothing comes twice, and all is in order: in what is stored and in what each heard of the other.
const messages = stored.filter((event) => event.getType() === "m.room.message");
assert.deepEqual(messages.map((event) => event.getId()), said);
for (const [speaker, listener] of [[alice, bob], [bob, alice]]) {
    const spoken = messages.filter((event) => event.getSender() === speaker.id).map((event) => event.getId());
    assert.deepEqual(listener.arrived, spoken, `${listener.name} did not hear just what ${speaker.name} said`);
}
for (const eventId of [said[0], said.at(-1)]) {
    assert(stored.find((event) => event.getId() === eventId).isRedacted(), "a redacted message is back");
}

for (const person of [alice, bob]) {
    person.client.stopClient();
    await person.client.logout();
}
console.log(`${said.length} messages were read by both`);
process.exit(0);
