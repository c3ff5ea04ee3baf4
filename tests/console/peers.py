"""An RCON server that others wrote, with a few commands of ours.

    peers.py rconx|rcon-fake PASSWORD

rconx speaks as Source servers do (a login in two packets, answers in pieces of 4 KB, an echo of the probe, and it
hangs up on a wrong password); rcon-fake speaks as Minecraft does (one packet each, id -1 for a wrong password).
Prints "port=…" when it listens, and ends when its input does.
"""

import os
import socket
import sys
import threading
import time

import rcon_fake
import rconx

HOST = "127.0.0.1"


def answer(command):
    if command == "slow":
        time.sleep(2.5)
        return "at last"
    if command == "silent":
        return ""
    if command == "long":
        return "".join(f"line {number} é\n" for number in range(4000))
    return f"you said {command}"


def free_port():
    with socket.socket() as one:
        one.bind((HOST, 0))
        return one.getsockname()[1]


def serve(kind, password, port):
    if kind == "rconx":
        server = rconx.RconServer(
            HOST, port, authentication=password, command_handler=lambda content, info: answer(content.text)
        )
        server.serve()
    else:
        server = rcon_fake.RCON(HOST, port, password)
        server.set_handler(answer)
        server.start(threading=False)


def main():
    kind, password = sys.argv[1:]
    port = free_port()
    threading.Thread(target=serve, args=(kind, password, port), daemon=True).start()
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                sys.exit("it does not listen")
            time.sleep(0.02)
    print(f"port={port}", flush=True)
    sys.stdin.read()
    os._exit(0)


main()
