# SPDX-License-Identifier: MIT
"""cryptography: ciphers, hashes and keys of OpenSSL and Rust half-way through their data; no key is
made twice, though its OpenSSL is a copy in the module that nobody can seed.

live: rounds=30 needs=cryptography
"""
import sys

import pyheap
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def check_new(file):
    """Keys that were made after an epoch and in a life that was killed are other ones."""
    file.seek(0)
    made = set(file.read().split())
    new = ed25519.Ed25519PrivateKey.generate().sign(b"").hex()
    assert new not in made, "the same key once more"
    file.write(new + "\n")
    file.flush()


def main():
    rounds = int(sys.argv[1])
    made = pyheap.keep_file(open("../made", "a+"))
    cipher = Cipher(algorithms.AES(b"k" * 32), modes.CTR(b"n" * 16))
    encrypt, decrypt = cipher.encryptor(), cipher.decryptor()
    running = hashes.Hash(hashes.SHA256())
    code = hmac.HMAC(b"key", hashes.SHA512())
    key = ed25519.Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    tokens = Fernet(Fernet.generate_key())
    for r in range(rounds):
        text = b"text %d " % r * 300
        hidden = encrypt.update(text)
        running.update(hidden)
        token = tokens.encrypt(text)
        pyheap.epoch()
        check_new(made)
        assert decrypt.update(hidden) == text and tokens.decrypt(token) == text
        code.update(text)
        signature = key.sign(text)
        key.public_key().verify(signature, text)
        if r % 10 == 0:
            print(r, running.copy().finalize().hex()[:16], code.copy().finalize().hex()[:16],
                  signature.hex()[:16])


main()
