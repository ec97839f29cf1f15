"""A cut loses what it says, in the direction that it says, and what was lost arrives once it has healed."""

import socket
import threading

import pytest

from tests.faults.network import Cut, Network

SOON_S, LONG_S = 0.3, 60.0


class Wire:
    """Both ends of one connection through a link."""

    def __init__(self, network, folder):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "server.sock"))
        self._listener.listen()
        self.link = network.link(folder / "server.sock")
        self.client, self.server = self.connect()

    def connect(self, timeout_s=LONG_S):
        client = socket.create_connection(("127.0.0.1", self.link.port), timeout=timeout_s)
        self._listener.settimeout(timeout_s)
        return client, self._listener.accept()[0]

    def close(self):
        for end in (self.client, self.server, self._listener):
            end.close()


@pytest.fixture
def wire(tmp_path):
    network = Network()
    wire = Wire(network, tmp_path)
    yield wire
    wire.close()
    network.close()


def carries(sender, receiver, within_s):
    sender.sendall(b"x")
    receiver.settimeout(within_s)
    try:
        return receiver.recv(1) == b"x"
    except TimeoutError:
        return False


@pytest.mark.parametrize(
    ("cut", "request_arrives", "answer_arrives"),
    [(Cut.BLACK_HOLE, False, False), (Cut.REQUESTS_LOST, False, True), (Cut.ANSWERS_LOST, True, False)],
)
def test_what_was_lost_arrives_late(wire, cut, request_arrives, answer_arrives):
    assert carries(wire.client, wire.server, LONG_S)
    assert carries(wire.server, wire.client, LONG_S)
    wire.link.cut(cut, for_s=LONG_S)
    threading.Event().wait(SOON_S)  # until the network's thread has seen it
    assert carries(wire.client, wire.server, SOON_S) is request_arrives
    assert carries(wire.server, wire.client, SOON_S) is answer_arrives
    wire.link.heal()
    for arrived, receiver in ((request_arrives, wire.server), (answer_arrives, wire.client)):
        receiver.settimeout(LONG_S)
        assert arrived or receiver.recv(1) == b"x"


def test_nobody_connects_through_a_black_hole(wire):
    wire.link.cut(Cut.BLACK_HOLE, for_s=LONG_S)
    threading.Event().wait(SOON_S)
    with pytest.raises(TimeoutError):
        wire.connect(timeout_s=SOON_S)


def test_a_reset_closes_connections_until_it_heals_by_itself(wire):
    wire.link.cut(Cut.RESET, for_s=SOON_S)
    wire.client.settimeout(LONG_S)
    with pytest.raises(ConnectionResetError):
        wire.client.recv(1)
    threading.Event().wait(2 * SOON_S)
    client, server = wire.connect()
    assert carries(client, server, LONG_S)
    client.close()
    server.close()
