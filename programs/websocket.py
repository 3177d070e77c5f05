"""Both ends of websocket.sh: `websocket.py echo` and `websocket.py talk PORT SECONDS`, with Debian's python3-websockets."""

import asyncio
import random
import sys
import time

import websockets

# Both ends ask whether the other is there, as they do by default, only more often.
ALIVE = {"ping_interval": 5, "ping_timeout": 15}


async def echo_one(socket, path=None):
    async for message in socket:
        await socket.send(message)


async def echo():
    async with websockets.serve(echo_one, "127.0.0.1", 0, **ALIVE) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def message(number):
    """Any length up to 20 kB; the number says which, and what is in it."""
    made = random.Random(number)
    return f"{number} {made.getrandbits(8 * made.choice([4, 40, 400, 10_000])):x}"


async def talk(port, seconds):
    count, slowest = seconds * 20, 0.0
    async with websockets.connect(f"ws://127.0.0.1:{port}", **ALIVE) as socket:
        sent = []

        async def send():
            for number in range(count):
                sent.append(time.monotonic())
                await socket.send(message(number))
                await asyncio.sleep(0.05)

        sending = asyncio.create_task(send())
        for number in range(count):
            if await socket.recv() != message(number):
                sys.exit(f"what came as message {number} is not that")
            slowest = max(slowest, time.monotonic() - sent[number])
        await sending
    if socket.close_code != 1000:
        sys.exit(f"closed with {socket.close_code}")
    print(f"{count} messages came back in order, the slowest after {slowest:.1f} s")


if sys.argv[1] == "echo":
    asyncio.run(echo())
else:
    asyncio.run(talk(int(sys.argv[2]), int(sys.argv[3])))
