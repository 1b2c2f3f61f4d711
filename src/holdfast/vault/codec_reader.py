"""Reading an encoded blob's fields without trusting any of them."""

from holdfast.errors import IntegrityError

MAX_NUMBER = (1 << 63) - 1


class DamagedBlobError(IntegrityError):
    """An encoded blob is not what was written, or its base is another one than it was encoded against."""


class Reader:
    """Takes fields one after the other; one that would go beyond the end raises.

    Args:
        data: the bytes.
        what: what they are, for the messages.
    """

    def __init__(self, data: memoryview, what: str) -> None:
        self.data, self.what, self.place, self._end = data, what, 0, len(data)

    @property
    def left(self) -> int:
        """How many bytes are not yet taken."""
        return self._end - self.place

    def take(self, length: int) -> memoryview:
        """The next bytes.

        Raises:
            DamagedBlobError: there are fewer.
        """
        start = self.place
        stop = start + length
        if stop > self._end:
            raise self.damage(f"{length} bytes are declared where {self.left} are left")
        self.place = stop
        return self.data[start:stop]

    def byte(self) -> int:
        """The next byte.

        Raises:
            DamagedBlobError: there is none.
        """
        place = self.place
        if place >= self._end:
            raise self.damage("it ends too early")
        self.place = place + 1
        return self.data[place]

    def number(self) -> int:
        """The next number: seven bits a byte, the lowest first, the highest bit set on all bytes but the last.

        Raises:
            DamagedBlobError: it does not end, is larger than `MAX_NUMBER`, or is written longer than it needs.
        """
        data, place = self.data, self.place
        number = shift = 0
        try:
            while (byte := data[place]) > 0x7F:
                number |= (byte & 0x7F) << shift
                shift += 7
                place += 1
                if shift > 56:
                    raise self.damage("a number does not end")
        except IndexError:
            raise self.damage("it ends too early") from None
        if byte == 0 and shift:
            raise self.damage("a number is written longer than it needs")
        self.place = place + 1
        return number | byte << shift

    def end(self) -> None:
        """Nothing may be left.

        Raises:
            DamagedBlobError: something is.
        """
        if self.left:
            raise self.damage(f"{self.left} bytes are left over")

    def damage(self, reason: str) -> DamagedBlobError:
        """The error to raise, with the reason."""
        return DamagedBlobError(f"{self.what} is damaged: {reason}")


def number_bytes(number: int) -> bytes:
    """What `Reader.number` reads."""
    if number < 1 << 14:  # most are
        return bytes((number,)) if number < 1 << 7 else bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
