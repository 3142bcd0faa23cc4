"""Plugs a USB device that is a Python object into a machine: QEMU reaches it by USB redirection.

https://gitlab.freedesktop.org/spice/usbredir/-/blob/main/docs/usb-redirection-protocol.md, version 0.7
"""

import collections
import select
import socket
import struct
import threading

_HELLO, _CONNECT, _INTERFACES, _ENDPOINTS = 0, 1, 4, 5
_SET_CONFIGURATION, _CONFIGURATION, _SET_SETTING, _SETTING, _CANCEL = 6, 8, 9, 11, 21
_CONTROL, _BULK = 100, 101
_SUCCESS, _CANCELLED, _STALL = 0, 1, 4
# Capabilities: the device's version, sizes of packets, 64 bits of number, 32 bits of length.
_CAPABILITIES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6
_HIGH_SPEED = 2
_NO_ENDPOINT, _CONTROL_ENDPOINT, _BULK_ENDPOINT = 255, 0, 2
_INTO_HOST = 0x80


class Port:
    """Where `device` can be plugged in. It has

    - `IDENTITY`: class, subclass, protocol, vendor, product and version;
    - `INTERFACES`: class and subclass of each, the last of which has a bulk endpoint into the host, `ENDPOINT`, with
      packets of `PACKET` bytes;
    - `control(kind, request, value, data)`: what a control request is answered with, or `None`;
    - `give()`: what is to be sent through the endpoint, transfer by transfer; nothing if it is too early.
    """

    def __init__(self, name, path, device):
        self.name, self.path, self.device = name, path, device
        self.plugged = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._live, daemon=True).start()

    def arguments(self):
        """Of QEMU, which tries again each second while nothing is plugged in."""
        connection = f"socket,id={self.name},path={self.path},reconnect=1"
        return ["-chardev", connection, "-device", f"usb-redir,chardev={self.name}"]

    def plug(self):
        self.plugged.set()

    def unplug(self):
        self.plugged.clear()

    def _live(self):
        while True:
            self.plugged.wait()
            connection, _ = self.listener.accept()
            with connection:
                _Connection(connection, self.device).serve(self.plugged)


class _Connection:
    """From the moment that the device is plugged in to that when it is pulled out, or the machine is off."""

    def __init__(self, connection, device):
        self.connection, self.device = connection, device
        # Bytes of the number of a message: more once both sides have said what they can.
        self.number_bytes = 4
        # Numbers of transfers that the machine waits for, and what they will carry.
        self.asked = collections.deque()
        self.transfers = collections.deque()

    def serve(self, plugged):
        try:
            self._send(_HELLO, 0, struct.pack("<64sI", b"tests/field/redirection.py", _CAPABILITIES))
            while plugged.is_set():
                ready, _, _ = select.select([self.connection], [], [], 0.02)
                if ready:
                    self._receive()
                if self.asked and not self.transfers:
                    self.transfers.extend(self.device.give())
                while self.asked and self.transfers:
                    self._bulk(self.asked.popleft(), _SUCCESS, self.transfers.popleft())
        except (ConnectionError, EOFError):
            pass

    def _receive(self):
        kind, length = struct.unpack("<II", self._read(8))
        number = int.from_bytes(self._read(self.number_bytes), "little")
        data = self._read(length)
        if kind == _HELLO:
            self.number_bytes = 8
            self._introduce()
        elif kind == _SET_CONFIGURATION:
            self._send(_CONFIGURATION, number, bytes([_SUCCESS, data[0]]))
        elif kind == _SET_SETTING:
            self._send(_SETTING, number, bytes([_SUCCESS, data[0], data[1]]))
        elif kind == _CONTROL:
            self._control(number, data)
        elif kind == _BULK:
            self.asked.append(number)
        elif kind == _CANCEL and number in self.asked:
            self.asked.remove(number)
            self.transfers.clear()
            self._bulk(number, _CANCELLED, b"")

    def _introduce(self):
        interfaces = self.device.INTERFACES
        columns = [range(len(interfaces)), *zip(*interfaces), bytes(len(interfaces))]
        self._send(
            _INTERFACES,
            0,
            struct.pack("<I", len(interfaces)) + b"".join(bytes(column).ljust(32, b"\0") for column in columns),
        )
        # 32 places, those of endpoints into the host behind the others.
        place = 16 + self.device.ENDPOINT % 16
        kinds, belongs, sizes = [_NO_ENDPOINT] * 32, [0] * 32, [64] * 32
        kinds[0] = kinds[16] = _CONTROL_ENDPOINT
        kinds[place], belongs[place], sizes[place] = _BULK_ENDPOINT, len(interfaces) - 1, self.device.PACKET
        self._send(_ENDPOINTS, 0, struct.pack("<32B32x32B32H", *kinds, *belongs, *sizes))
        self._send(_CONNECT, 0, struct.pack("<4BHHH", _HIGH_SPEED, *self.device.IDENTITY))

    def _control(self, number, data):
        endpoint, request, kind, _, value, index, length = struct.unpack_from("<4B3H", data)
        answer = self.device.control(kind, request, value, data[10:])
        status = _STALL if answer is None else _SUCCESS
        # Of what came from the host only the length goes back.
        answer = (answer or b"")[:length] if kind & _INTO_HOST else b""
        length = len(answer) if kind & _INTO_HOST else length
        header = struct.pack("<4B3H", endpoint, request, kind, status, value, index, length)
        self._send(_CONTROL, number, header + answer)

    def _bulk(self, number, status, data):
        header = struct.pack("<BBHIH", self.device.ENDPOINT, status, len(data) % 65536, 0, len(data) // 65536)
        self._send(_BULK, number, header + data)

    def _send(self, kind, number, data):
        header = struct.pack("<II", kind, len(data)) + number.to_bytes(self.number_bytes, "little")
        self.connection.sendall(header + data)

    def _read(self, length):
        data = b""
        while len(data) < length:
            part = self.connection.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data
