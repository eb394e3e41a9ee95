"""Random seeds as a pure function of what they are for, so that a resumed run needs no random state."""

import hashlib


def derive(*parts: object) -> int:
    """A 63-bit seed from printable parts, the same in every process: `derive(seed, step, "rollout", 3)`."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
