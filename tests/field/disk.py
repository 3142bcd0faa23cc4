"""A disk that power can be taken from: a server of the Network Block Device protocol, in memory.

Like a disk with a write cache it promises nothing of what was written since the last flush. Blocks are written whole
and in no order. https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""

import socket
import struct
import threading

BLOCK = 4096

_OPTION = 0x49484156454F5054
_OPTION_REPLY = 0x3E889045565A9
_REQUEST = 0x25609513
_REPLY = 0x67446698
_ABORT, _GO = 2, 7
_ACK, _INFO, _UNSUPPORTED = 1, 3, 2**31 + 1
_READ, _WRITE, _DISCONNECT, _FLUSH = 0, 1, 2, 3
_HAS_FLAGS, _CAN_FLUSH = 1, 4
_INVALID = 22


class Disk:
    """`image` is what the machine reads; `unflushed` what each block may hold after a power cut, the flushed first."""

    def __init__(self, image):
        self.image = bytearray(image)
        self.unflushed = {}
        self.flushes = 0
        # Set: the next flush of anything does not come about, nor anything after it, and `stopped` is set.
        self.stop_at_flush = threading.Event()
        self.stopped = threading.Event()

    def write(self, offset, data):
        first, last = offset // BLOCK, (offset + len(data) - 1) // BLOCK
        for block in range(first, last + 1):
            self.unflushed.setdefault(block, [self._block(block)])
        self.image[offset : offset + len(data)] = data
        for block in range(first, last + 1):
            self.unflushed[block].append(self._block(block))

    def flush(self):
        """Whether the disk still works."""
        if self.unflushed and self.stop_at_flush.is_set():
            self.stopped.set()
            return False
        self.unflushed.clear()
        self.flushes += 1
        return True

    def keep_all(self, _random):
        """The machine died and the disk did not: blocks that it was given are there."""
        self.unflushed.clear()

    def lose_all(self, _random):
        """The disk's cache is gone."""
        self._settle(lambda versions: versions[0])

    def reorder(self, random):
        """Some blocks of the cache had been written, later ones before earlier ones, and some had not."""
        self._settle(random.choice)

    def power(self):
        """On again."""
        self.stop_at_flush.clear()
        self.stopped.clear()

    def _settle(self, choose):
        for block, versions in self.unflushed.items():
            self.image[block * BLOCK : (block + 1) * BLOCK] = choose(versions)
        self.unflushed.clear()

    def _block(self, block):
        return bytes(self.image[block * BLOCK : (block + 1) * BLOCK])


class Server:
    """Serves a disk to one client at a path, until that is gone."""

    def __init__(self, disk, path):
        self.disk = disk
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def end(self):
        """Waits for what the client, which has ended, has sent; raises what went wrong."""
        # For a client that never came.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        if self.error:
            raise self.error

    def _run(self):
        try:
            client, _ = self.listener.accept()
            with client, client.makefile("rb") as received:
                self._serve(client, received)
        except (OSError, EOFError):
            # Cut off amid a request, which then was none.
            pass
        except Exception as error:
            self.error = error

    def _serve(self, client, received):
        def take(form):
            return struct.unpack(form, exactly(struct.calcsize(form)))

        def exactly(size):
            data = received.read(size)
            if len(data) < size:
                raise EOFError
            return data

        client.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
        take(">I")
        while True:
            magic, option, size = take(">QII")
            assert magic == _OPTION
            exactly(size)
            answer = struct.pack(">QI", _OPTION_REPLY, option)
            if option == _GO:
                about = struct.pack(">HQH", 0, len(self.disk.image), _HAS_FLAGS | _CAN_FLUSH)
                client.sendall(answer + struct.pack(">II", _INFO, len(about)) + about)
                client.sendall(answer + struct.pack(">II", _ACK, 0))
                break
            client.sendall(answer + struct.pack(">II", _ACK if option == _ABORT else _UNSUPPORTED, 0))
            if option == _ABORT:
                return
        while True:
            magic, _, kind, handle, offset, size = take(">IHHQQI")
            assert magic == _REQUEST
            error, data = 0, b""
            if kind == _READ:
                data = bytes(self.disk.image[offset : offset + size])
            elif kind == _WRITE:
                self.disk.write(offset, exactly(size))
            elif kind == _FLUSH:
                if not self.disk.flush():
                    # What has come meanwhile is in no cache.
                    while received.read1(1 << 16):
                        pass
                    return
            elif kind == _DISCONNECT:
                return
            else:
                error = _INVALID
            client.sendall(struct.pack(">IIQ", _REPLY, error, handle) + data)
