"""Reads token shards as Megatron-LM does (megatron/core/datasets/indexed_dataset.py), by NumPy, and with megatron-core's own
IndexedDataset where that is installed; prints documents, tokens and a checksum of each PREFIX, and fails if the two differ.

    python3 tests/reference/shard.py PREFIX...
"""
import struct
import sys
import zlib
import numpy as np

TYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 6: np.float64, 7: np.float32, 8: np.uint16}


def read(prefix):
    index = open(prefix + ".idx", "rb").read()
    assert index[:9] == b"MMIDIDX\x00\x00", "magic"
    version, code, sequences, documents = struct.unpack_from("<QBQQ", index, 9)
    assert version == 1
    lengths = np.frombuffer(index, np.int32, sequences, 34)
    pointers = np.frombuffer(index, np.int64, sequences, 34 + 4 * sequences)
    starts = np.frombuffer(index, np.int64, documents, 34 + 12 * sequences)
    assert len(index) == 34 + 12 * sequences + 8 * documents
    assert starts[0] == 0 and starts[-1] == sequences and documents == sequences + 1
    data = open(prefix + ".bin", "rb").read()
    assert len(data) == int(lengths.sum()) * np.dtype(TYPES[code]).itemsize
    return [np.frombuffer(data, TYPES[code], n, p) for n, p in zip(lengths, pointers)]


def megatron(prefix):
    try:
        from megatron.core.datasets.indexed_dataset import IndexedDataset
    except ImportError:
        return None
    dataset = IndexedDataset(prefix)
    return [dataset[i].copy() for i in range(len(dataset))]  # its map closes with it


for prefix in sys.argv[1:]:
    ours, theirs = read(prefix), megatron(prefix)
    if theirs is not None:
        assert len(ours) == len(theirs) and all((a == b).all() and a.dtype == b.dtype for a, b in zip(ours, theirs)), prefix
    crc = zlib.crc32(b"".join(d.astype("<i4").tobytes() for d in ours))
    print(prefix, len(ours), sum(map(len, ours)), f"{crc:08x}", "megatron-core agrees" if theirs is not None else "by the format alone", sep="\t")
