/* Verify a batch record: what `verify` of protocol/batch.py does, for the records that are right.

   The layout is drawn in protocol/batch.py. A record that is wrong is not judged here: the answer is None, and Python
   says what is wrong and where. So the two must agree on which records are right, and nothing else;
   tests/protocol/test_native.py holds them to it.

   No byte of a record is trusted. `size` is the buffer's, each position is compared with it before it is read, and
   sums are of 64 bits, where three numbers of 32 bits can't wrap. Fields need not be aligned. */

#define Py_LIMITED_API 0x030B0000 /* one build serves CPython 3.11 and all later ones */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "digest.h"

#if !PY_LITTLE_ENDIAN
#error "fields are read as they lie, in little-endian order; elsewhere Python verifies"
#endif

enum {
    HEADER_SIZE = 256,
    FRAME_HEADER_SIZE = 48,
    PAYLOAD_SIZE_MAX = 64000000,
    USER_HEADERS_SIZE_MAX = 100000,
    ZEROS_START = 52,
    HASHED_SIZE = 44, /* what the batch checksum covers of the header: bytes 0..39 and the count */
};

static uint32_t
u32_at(const uint8_t *place)
{
    uint32_t value;
    memcpy(&value, place, sizeof value);
    return value;
}

static uint64_t
u64_at(const uint8_t *place)
{
    uint64_t value;
    memcpy(&value, place, sizeof value);
    return value;
}

/* Return the size of the frame that starts a run of `left` bytes; 0 for one that is wrong or ends behind them. */
static uint64_t
frame_size(const uint8_t *frame, uint64_t left, uint64_t delta)
{
    if (left < FRAME_HEADER_SIZE) {
        return 0;
    }
    uint64_t headers_size = u32_at(frame + 32);
    uint64_t payload_size = u32_at(frame + 36);
    uint64_t size = FRAME_HEADER_SIZE + headers_size + payload_size;
    int is_right = u32_at(frame + 24) == delta && u64_at(frame + 40) == 0 && size <= left && payload_size > 0
                   && payload_size <= PAYLOAD_SIZE_MAX && headers_size <= USER_HEADERS_SIZE_MAX;
    return is_right ? size : 0;
}

/* Tell whether `count` right frames fill the record, and copy their stored checksums to `checksums`, 8 bytes each. */
static int
walk(const uint8_t *record, uint64_t size, uint64_t count, uint8_t *checksums)
{
    uint64_t first_delta = u32_at(record + HEADER_SIZE + 24);
    uint64_t position = HEADER_SIZE;
    for (uint64_t index = 0; index < count; index++) {
        const uint8_t *frame = record + position;
        uint64_t taken = frame_size(frame, size - position, first_delta + index);
        if (taken == 0 || digest(frame + 8, taken - 8) != u64_at(frame)) {
            return 0;
        }
        memcpy(checksums + 8 * index, frame, 8);
        position += taken;
    }
    return position == size;
}

/* Return the message count of a record whose header can be right, checksum aside; 0 where it can't. */
static uint64_t
count_of(const uint8_t *record, uint64_t size)
{
    static const uint8_t zeros[HEADER_SIZE - ZEROS_START];
    if (size < HEADER_SIZE + FRAME_HEADER_SIZE || u64_at(record + 32) != size) {
        return 0;
    }
    uint64_t count = u32_at(record + 48);
    int fits = count <= (size - HEADER_SIZE) / FRAME_HEADER_SIZE;
    return fits && memcmp(record + ZEROS_START, zeros, sizeof zeros) == 0 ? count : 0;
}

/* Fill `hashed` with what the batch checksum covers, HASHED_SIZE + 8 * count bytes; tell whether all is right. */
static int
is_right(const uint8_t *record, uint64_t size, uint64_t count, uint8_t *hashed)
{
    memcpy(hashed, record, 40);
    memcpy(hashed + 40, record + 48, 4);
    return walk(record, size, count, hashed + HASHED_SIZE)
           && digest(hashed, HASHED_SIZE + 8 * count) == u64_at(record + 40);
}

/* Return what a Batch has beside its record, or a new reference to None. */
static PyObject *
verified(const uint8_t *record, uint64_t size)
{
    uint64_t count = count_of(record, size);
    if (count == 0) {
        Py_RETURN_NONE;
    }
    uint8_t *hashed = PyMem_Malloc(HASHED_SIZE + 8 * count);
    if (hashed == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *found = Py_None;
    if (is_right(record, size, count, hashed)) {
        found = Py_BuildValue("(Ky#KI)", (unsigned long long)count, hashed + HASHED_SIZE, (Py_ssize_t)(8 * count),
                              (unsigned long long)u64_at(record), u32_at(record + HEADER_SIZE + 24));
    }
    else {
        Py_INCREF(found);
    }
    PyMem_Free(hashed);
    return found;
}

static PyObject *
verify(PyObject *module, PyObject *record)
{
    (void)module;
    Py_buffer view;
    if (PyObject_GetBuffer(record, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *found = verified(view.buf, (uint64_t)view.len);
    PyBuffer_Release(&view);
    return found;
}

static PyMethodDef functions[] = {
    {"verify", verify, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_frames",
    .m_methods = functions,
};

PyMODINIT_FUNC
PyInit__frames(void)
{
    choose_digest();
    return PyModuleDef_Init(&definition);
}
