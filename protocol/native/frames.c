/* What the broker does with every batch record: `verify`, `stamp` and `hop` of protocol/batch.py.

   The layout is drawn there. What is wrong is not judged here: the answer is None, and Python says what is wrong and
   where. So the two must agree on what is right, and on nothing else; tests/protocol/test_native.py holds them to it.

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

static void
put_u64(uint8_t *place, uint64_t value)
{
    memcpy(place, &value, sizeof value);
}

/* Write what the server assigns into a header; `hashed` has room for HASHED_SIZE bytes before the checksums. */
static void
put_stamp(uint8_t *record, uint8_t *hashed, uint64_t hashed_size, const uint64_t fields[3])
{
    for (int index = 0; index < 3; index++) {
        put_u64(record + 8 * index, fields[index]);
    }
    memcpy(hashed, record, 40);
    memcpy(hashed + 40, record + 48, 4);
    put_u64(record + 40, digest(hashed, hashed_size));
}

static PyObject *
stamped(Py_buffer *record, Py_buffer *checksums, const uint64_t fields[3])
{
    uint8_t few[HASHED_SIZE + 8 * 32];
    uint64_t hashed_size = HASHED_SIZE + (uint64_t)checksums->len;
    if (record->len < HEADER_SIZE) {
        PyErr_SetString(PyExc_ValueError, "the record has no header");
        return NULL;
    }
    uint8_t *hashed = hashed_size <= sizeof few ? few : PyMem_Malloc(hashed_size);
    if (hashed == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(hashed + HASHED_SIZE, checksums->buf, (size_t)checksums->len);
    put_stamp(record->buf, hashed, hashed_size, fields);
    if (hashed != few) {
        PyMem_Free(hashed);
    }
    Py_RETURN_NONE;
}

/* Read `count` numbers from Python; tell whether they are numbers of 64 bits. */
static int
read_numbers(PyObject *const *from, int count, uint64_t *numbers)
{
    for (int index = 0; index < count; index++) {
        numbers[index] = PyLong_AsUnsignedLongLong(from[index]);
        if (numbers[index] == UINT64_MAX && PyErr_Occurred()) {
            return 0;
        }
    }
    return 1;
}

/* stamp(record, checksums, partition_id, base_offset, base_timestamp_us) */
static PyObject *
stamp(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer record, checksums;
    uint64_t fields[3];
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "stamp takes 5 arguments");
        return NULL;
    }
    if (!read_numbers(args + 2, 3, fields) || PyObject_GetBuffer(args[0], &record, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (PyObject_GetBuffer(args[1], &checksums, PyBUF_SIMPLE) == 0) {
        result = stamped(&record, &checksums, fields);
        PyBuffer_Release(&checksums);
    }
    PyBuffer_Release(&record);
    return result;
}

/* numbers: position, offset, stop and room. found: where the last record ends, the offset behind it, where it begins and
   its base offset. */
static void
hop_over(const uint8_t *data, uint64_t size, const uint64_t numbers[4], uint64_t found[4])
{
    uint64_t end = numbers[0], offset = numbers[1], stop = numbers[2], room = numbers[3];
    uint64_t last = end, base = offset;
    uint64_t end_max = end < size && room < size - end ? end + room : size;
    while (offset < stop) {
        if (end > end_max || end_max - end < HEADER_SIZE) {
            break;
        }
        const uint8_t *record = data + end;
        uint64_t record_size = u64_at(record + 32), count = u32_at(record + 48);
        if (u64_at(record + 8) != offset || record_size < HEADER_SIZE + FRAME_HEADER_SIZE || record_size > end_max - end
            || count == 0 || offset + count < offset) {
            break;
        }
        last = end;
        base = offset;
        end += record_size;
        offset += count;
    }
    found[0] = end;
    found[1] = offset;
    found[2] = last;
    found[3] = base;
}

/* hop(data, position, offset, stop, room) */
static PyObject *
hop(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    Py_buffer data;
    uint64_t numbers[4], found[4];
    if (count != 5) {
        PyErr_SetString(PyExc_TypeError, "hop takes 5 arguments");
        return NULL;
    }
    if (!read_numbers(args + 1, 4, numbers) || PyObject_GetBuffer(args[0], &data, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    hop_over(data.buf, (uint64_t)data.len, numbers, found);
    PyBuffer_Release(&data);
    return Py_BuildValue("(KKKK)", (unsigned long long)found[0], (unsigned long long)found[1],
                         (unsigned long long)found[2], (unsigned long long)found[3]);
}

static PyMethodDef functions[] = {
    {"verify", verify, METH_O, NULL},
    {"stamp", (PyCFunction)(void (*)(void))stamp, METH_FASTCALL, NULL},
    {"hop", (PyCFunction)(void (*)(void))hop, METH_FASTCALL, NULL},
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
