"""A USB camera that is plugged into a machine: a device of the USB Video Class that QEMU reaches by USB redirection.

https://gitlab.freedesktop.org/spice/usbredir/-/blob/main/docs/usb-redirection-protocol.md, version 0.7, and the USB
Device Class Definition for Video Devices, 1.0a, with a bulk endpoint.
"""

import collections
import select
import socket
import struct
import threading
import time

_HELLO, _CONNECT, _RESET, _INTERFACES, _ENDPOINTS = 0, 1, 3, 4, 5
_SET_CONFIGURATION, _CONFIGURATION, _SET_SETTING, _SETTING, _CANCEL = 6, 8, 9, 11, 21
_CONTROL, _BULK = 100, 101
_SUCCESS, _CANCELLED, _STALL = 0, 1, 4
# Capabilities: the device's version, sizes of packets, 64 bits of number, 32 bits of length.
_CAPABILITIES = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6
_HIGH_SPEED = 2
_VIDEO, _VIDEO_CONTROL, _VIDEO_STREAMING = 14, 1, 2
_ENDPOINT = 0x81
_PACKET = 512
_PAYLOAD = 32 * _PACKET
# Of the header of a payload: it ends here, this is the last of the frame, and what changes from frame to frame.
_END_OF_HEADER, _END_OF_FRAME, _FRAME = 0x80, 2, 1
_SET_CUR, _GET_CUR, _GET_MIN, _GET_MAX, _GET_DEF = 0x01, 0x81, 0x82, 0x83, 0x87
# 100 ns.
_INTERVAL = 2_500_000


class Format:
    """Frames by their size, in pixels: compressed, or YUYV with so many bits per pixel, those of padding among them."""

    def __init__(self, frames, bits=None):
        self.frames = list(frames.items())
        self.bits = bits

    def most(self, index):
        """Bytes of the largest frame of a size."""
        _, frames = self.frames[index - 1]
        return max(map(len, frames))

    def descriptors(self, index):
        count = len(self.frames)
        if self.bits:
            guid = struct.pack("<4s12s", b"YUY2", bytes.fromhex("00001000800000aa00389b71"))
            form = struct.pack("<BBBB16s6B", 0x24, 4, index, count, guid, self.bits, 1, 0, 0, 0, 0)
        else:
            form = bytes([0x24, 6, index, count, 0, 1, 0, 0, 0, 0])
        descriptors = _sized(form)
        for place, ((width, height), _) in enumerate(self.frames, 1):
            most = self.most(place)
            rate = most * 8 * 10_000_000 // _INTERVAL
            kind = 5 if self.bits else 7
            frame = (0x24, kind, place, 0, width, height, rate, rate, most, _INTERVAL, 1, _INTERVAL)
            descriptors += _sized(struct.pack("<4BHHIIIIBI", *frame))
        return descriptors


class Webcam:
    """A camera that gives the frames of the format that it is told, again and again, while it is plugged in."""

    def __init__(self, name, path, formats):
        self.name = name
        self.formats = formats
        # By the numbers that the descriptors give them.
        self.format, self.size = 1, 1
        self.plugged = threading.Event()
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self._live, daemon=True).start()

    def device(self):
        """How QEMU is told of it."""
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
                _Connection(self, connection).serve()


class _Connection:
    """From the moment that the camera is plugged in to that when it is pulled out."""

    def __init__(self, webcam, connection):
        self.webcam = webcam
        self.connection = connection
        self.wide = False
        # Numbers of what was asked for and not yet given.
        self.asked = collections.deque()
        self.payloads = collections.deque()
        self.next = time.monotonic()
        self.count = 0

    def serve(self):
        try:
            self._send(_HELLO, 0, struct.pack("<64sI", b"tests/field/webcam.py", _CAPABILITIES))
            while self.webcam.plugged.is_set():
                ready, _, _ = select.select([self.connection], [], [], 0.02)
                if ready:
                    self._receive()
                self._give()
        except (ConnectionError, EOFError):
            pass

    def _format(self):
        return self.webcam.formats[self.webcam.format - 1]

    def _give(self):
        if self.asked and not self.payloads and time.monotonic() >= self.next:
            self.next = time.monotonic() + _INTERVAL / 10_000_000
            _, frames = self._format().frames[self.webcam.size - 1]
            self._split(frames[self.count % len(frames)])
            self.count += 1
        while self.asked and self.payloads:
            self._bulk(self.asked.popleft(), _SUCCESS, self.payloads.popleft())

    def _split(self, frame):
        most = _PAYLOAD - 2
        parts = [frame[place : place + most] for place in range(0, len(frame), most)]
        for number, part in enumerate(parts):
            flags = _END_OF_HEADER | self.count % 2 * _FRAME | (number == len(parts) - 1) * _END_OF_FRAME
            self.payloads.append(bytes([2, flags]) + part)

    def _receive(self):
        kind, length = struct.unpack("<II", self._read(8))
        number = int.from_bytes(self._read(8 if self.wide else 4), "little")
        data = self._read(length)
        if kind == _HELLO:
            self.wide = True
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
            self.payloads.clear()
            self._bulk(number, _CANCELLED, b"")

    def _introduce(self):
        interfaces = [(_VIDEO, _VIDEO_CONTROL), (_VIDEO, _VIDEO_STREAMING)]
        columns = [range(2), *zip(*interfaces), [0, 0]]
        self._send(_INTERFACES, 0, struct.pack("<I", 2) + b"".join(bytes(column).ljust(32, b"\0") for column in columns))
        # 32 places, those of the endpoints into the host behind the others.
        place = 16 + (_ENDPOINT & 15)
        types = bytearray(b"\xff" * 32)
        types[0] = types[16] = 0
        types[place] = 2
        belongs = bytearray(32)
        belongs[place] = 1
        sizes = [_PACKET if here == place else 64 for here in range(32)]
        self._send(_ENDPOINTS, 0, bytes(types) + bytes(32) + bytes(belongs) + struct.pack("<32H", *sizes))
        self._send(_CONNECT, 0, struct.pack("<4BHHH", _HIGH_SPEED, 0xEF, 2, 1, 0x1D6B, 0x0102, 0x0100))

    def _control(self, number, data):
        endpoint, request, kind, _, value, index, length = struct.unpack_from("<4B3H", data)
        answer = self._answer(request, kind, value, data[10:])
        status = _STALL if answer is None else _SUCCESS
        answer = (answer or b"")[:length]
        # Of what was sent to the device only the length goes back.
        header = struct.pack("<4B3H", endpoint, request, kind, status, value, index, len(answer) if kind & 0x80 else length)
        self._send(_CONTROL, number, header + (answer if kind & 0x80 else b""))

    def _answer(self, request, kind, value, sent):
        """What a control request is answered with; `None` for one that is not understood."""
        if kind == 0x80 and request == 6:
            return self._descriptor(value >> 8, value & 0xFF)
        if kind == 0x80 and request == 0:
            return b"\0\0"
        if kind in (0x00, 0x02):
            return b""
        # The probe and commit controls of the streaming interface.
        if kind == 0x21 and request == _SET_CUR:
            self.webcam.format = min(max(sent[2], 1), len(self.webcam.formats))
            self.webcam.size = min(max(sent[3], 1), len(self._format().frames))
            return b""
        if kind == 0xA1 and request in (_GET_CUR, _GET_MIN, _GET_MAX, _GET_DEF):
            most = self._format().most(self.webcam.size)
            chosen = self.webcam.format, self.webcam.size
            return struct.pack("<HBBI5HII", 1, *chosen, _INTERVAL, 0, 0, 0, 0, 0, most, _PAYLOAD)
        return None

    def _descriptor(self, kind, index):
        if kind == 1:
            return struct.pack("<BBH4BHHHBBBB", 18, 1, 0x0200, 0xEF, 2, 1, 64, 0x1D6B, 0x0102, 0x0100, 0, 1, 0, 1)
        if kind == 2:
            return self._configuration()
        if kind == 3:
            text = self.webcam.name.encode("utf-16-le") if index else b"\x09\x04"
            return bytes([2 + len(text), 3]) + text
        return None

    def _configuration(self):
        formats = self.webcam.formats
        camera = _sized(struct.pack("<BBBHBBHHHB", 0x24, 2, 1, 0x0201, 0, 0, 0, 0, 0, 0))
        output = _sized(struct.pack("<BBBHBBB", 0x24, 3, 2, 0x0101, 0, 1, 0))
        control = struct.pack("<BBHHIBB", 0x24, 1, 0x0100, 13 + len(camera + output), 6_000_000, 1, 1)
        forms = b"".join(form.descriptors(index) for index, form in enumerate(formats, 1))
        header = 13 + len(formats)
        streaming = struct.pack("<BBBHBBBBBBB", 0x24, 1, len(formats), header + len(forms), _ENDPOINT, 0, 2, 0, 0, 0, 1)
        body = (
            _sized(bytes([11, 0, 2, _VIDEO, 3, 0, 1]))
            + _sized(bytes([4, 0, 0, 0, _VIDEO, _VIDEO_CONTROL, 0, 1]))
            + _sized(control)
            + camera
            + output
            + _sized(bytes([4, 1, 0, 1, _VIDEO, _VIDEO_STREAMING, 0, 0]))
            + _sized(streaming + bytes(len(formats)))
            + forms
            + _sized(struct.pack("<BBBHB", 5, _ENDPOINT, 2, _PACKET, 0))
        )
        return struct.pack("<BBHBBBBB", 9, 2, 9 + len(body), 2, 1, 0, 0x80, 250) + body

    def _bulk(self, number, status, data):
        header = struct.pack("<BBHIH", _ENDPOINT, status, len(data) & 0xFFFF, 0, len(data) >> 16)
        self._send(_BULK, number, header + data)

    def _send(self, kind, number, data):
        self.connection.sendall(struct.pack("<II", kind, len(data)) + number.to_bytes(8 if self.wide else 4, "little") + data)

    def _read(self, length):
        data = b""
        while len(data) < length:
            part = self.connection.recv(length - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def _sized(rest):
    """A descriptor: its length goes before it."""
    return bytes([1 + len(rest)]) + rest
