"""A USB camera: a device for `redirection`, of the USB Device Class Definition for Video Devices, 1.0a."""

import struct
import time

_DEVICE, _CONFIGURATION, _STRING, _INTERFACE, _ENDPOINT, _ASSOCIATION, _CLASS_INTERFACE = 1, 2, 3, 4, 5, 11, 0x24
_VIDEO, _VIDEO_CONTROL, _VIDEO_STREAMING, _VIDEO_COLLECTION = 14, 1, 2, 3
_HEADER, _INPUT_TERMINAL, _OUTPUT_TERMINAL = 1, 2, 3
_CAMERA, _TO_THE_HOST = 0x0201, 0x0101
_INPUT_HEADER, _UNCOMPRESSED, _UNCOMPRESSED_FRAME, _MJPEG, _MJPEG_FRAME = 1, 4, 5, 6, 7
_YUYV = b"YUY2" + bytes.fromhex("00001000800000aa00389b71")
# Kinds of requests, and requests.
_TO_CLASS, _FROM_CLASS, _FROM_DEVICE, _TO_DEVICE, _TO_ENDPOINT = 0x21, 0xA1, 0x80, 0x00, 0x02
_GET_STATUS, _GET_DESCRIPTOR = 0, 6
_SET_CUR, _GET_CUR, _GET_MIN, _GET_MAX, _GET_DEF = 0x01, 0x81, 0x82, 0x83, 0x87
# In the header of a payload: it ends here, this is the last of the frame, and what changes from frame to frame.
_END_OF_HEADER, _END_OF_FRAME, _FRAME = 0x80, 2, 1
# From frame to frame, in units of 100 ns.
_INTERVAL = 2_500_000
_SECOND = 10_000_000


class Format:
    """Frames by their size, in pixels: JPEGs, or YUYV with so many bits per pixel, those of padding among them."""

    def __init__(self, frames, bits=None):
        self.frames = list(frames.items())
        self.bits = bits

    def most(self, size):
        """Bytes of the largest frame of a size."""
        _, frames = self.frames[size - 1]
        return max(map(len, frames))

    def descriptors(self, number):
        sizes = len(self.frames)
        if self.bits:
            yuyv = [_CLASS_INTERFACE, _UNCOMPRESSED, number, sizes, *_YUYV, self.bits, 1, 0, 0, 0, 0]
            descriptors, kind = _sized(bytes(yuyv)), _UNCOMPRESSED_FRAME
        else:
            descriptors, kind = _sized(bytes([_CLASS_INTERFACE, _MJPEG, number, sizes, 0, 1, 0, 0, 0, 0])), _MJPEG_FRAME
        for size, ((width, height), _) in enumerate(self.frames, 1):
            most = self.most(size)
            rate = most * 8 * _SECOND // _INTERVAL
            frame = _CLASS_INTERFACE, kind, size, 0, width, height, rate, rate, most, _INTERVAL, 1, _INTERVAL
            descriptors += _sized(struct.pack("<4BHHIIIIBI", *frame))
        return descriptors


class Webcam:
    """Gives the frames of the format and the size that it is told, again and again."""

    IDENTITY = 0xEF, 2, 1, 0x1D6B, 0x0102, 0x0100
    INTERFACES = [(_VIDEO, _VIDEO_CONTROL), (_VIDEO, _VIDEO_STREAMING)]
    ENDPOINT = 0x81
    PACKET = 512
    # The most that uvcvideo asks for at once.
    PAYLOAD = 32 * PACKET

    def __init__(self, name, formats):
        self.name = name
        self.formats = formats
        # By the numbers that the descriptors give them.
        self.format, self.size = 1, 1
        self.next = time.monotonic()
        self.count = 0

    def give(self):
        """The payloads of the next frame, if it is time for it."""
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + _INTERVAL / _SECOND
        _, frames = self._chosen().frames[self.size - 1]
        frame = frames[self.count % len(frames)]
        most = self.PAYLOAD - 2
        for place in range(0, len(frame), most):
            last = _END_OF_FRAME if place + most >= len(frame) else 0
            yield bytes([2, _END_OF_HEADER | last | self.count % 2 * _FRAME]) + frame[place : place + most]
        self.count += 1

    def control(self, kind, request, value, data):
        if kind == _FROM_DEVICE and request == _GET_DESCRIPTOR:
            return self._descriptor(value >> 8, value & 0xFF)
        if kind == _FROM_DEVICE and request == _GET_STATUS:
            return bytes(2)
        if kind in (_TO_DEVICE, _TO_ENDPOINT):
            return b""
        # What is left are the probe and commit controls: the wish is granted where there is such a format.
        if kind == _TO_CLASS and request == _SET_CUR:
            self.format = min(max(data[2], 1), len(self.formats))
            self.size = min(max(data[3], 1), len(self._chosen().frames))
            return b""
        if kind == _FROM_CLASS and request in (_GET_CUR, _GET_MIN, _GET_MAX, _GET_DEF):
            most = self._chosen().most(self.size)
            return struct.pack("<HBBI10xII", 1, self.format, self.size, _INTERVAL, most, self.PAYLOAD)
        return None

    def _chosen(self):
        return self.formats[self.format - 1]

    def _descriptor(self, kind, index):
        if kind == _DEVICE:
            kind_of_device, ids = self.IDENTITY[:3], self.IDENTITY[3:]
            return _sized(struct.pack("<BH4BHHHBBBB", _DEVICE, 0x0200, *kind_of_device, 64, *ids, 0, 1, 0, 1))
        if kind == _CONFIGURATION:
            return self._configuration()
        if kind == _STRING:
            english = b"\x09\x04"
            return _sized(bytes([_STRING]) + (self.name.encode("utf-16-le") if index else english))
        return None

    def _configuration(self):
        """Two interfaces: a camera that is joined to the host, and the stream between them."""
        terminals = _sized(struct.pack("<BBBHB8x", _CLASS_INTERFACE, _INPUT_TERMINAL, 1, _CAMERA, 0)) + _sized(
            struct.pack("<BBBHBBB", _CLASS_INTERFACE, _OUTPUT_TERMINAL, 2, _TO_THE_HOST, 0, 1, 0)
        )
        control = struct.pack("<BBHHIBB", _CLASS_INTERFACE, _HEADER, 0x0100, 13 + len(terminals), 6_000_000, 1, 1)
        formats = b"".join(each.descriptors(number) for number, each in enumerate(self.formats, 1))
        count = len(self.formats)
        streaming = (_CLASS_INTERFACE, _INPUT_HEADER, count, 13 + count + len(formats), self.ENDPOINT, 0, 2, 0, 0, 0, 1)
        body = (
            _sized(bytes([_ASSOCIATION, 0, 2, _VIDEO, _VIDEO_COLLECTION, 0, 1]))
            + _sized(bytes([_INTERFACE, 0, 0, 0, _VIDEO, _VIDEO_CONTROL, 0, 1]))
            + _sized(control)
            + terminals
            + _sized(bytes([_INTERFACE, 1, 0, 1, _VIDEO, _VIDEO_STREAMING, 0, 0]))
            + _sized(struct.pack("<BBBHBBBBBBB", *streaming) + bytes(count))
            + formats
            + _sized(struct.pack("<BBBHB", _ENDPOINT, self.ENDPOINT, 2, self.PACKET, 0))
        )
        return _sized(struct.pack("<BHBBBBB", _CONFIGURATION, 9 + len(body), 2, 1, 0, 0x80, 250)) + body


def _sized(rest):
    """A descriptor: its length goes before it."""
    return bytes([1 + len(rest)]) + rest
