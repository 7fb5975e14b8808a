/* The items of a BatchGetItem's answer, where it is as plain as answers are.
 *
 * fastserve/store/dynamodb/plain_items.py says what plain is. Anything else is left to a JSON parser: whatever this
 * reader doesn't expect, it returns None for, and it never guesses. What it gains over a general parser is one
 * dictionary for an item instead of three, and one look at the rows' base64, many bytes at once.
 *
 * Invariants
 * 1. Whatever is returned stands in the document that a JSON parser makes of the same bytes.
 * 2. No byte behind the buffer's end is read.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum {
    KNOWN = 256,      /* names that are kept, by a hash of their text: a power of two */
    LONGEST_NAME = 255, /* of a table or an attribute */
};

typedef struct {
    const char *at, *end;
} Reader;

/* Names come again with each item; making a string of one takes longer than all else that is done for it. */
static PyObject *known_names[KNOWN];

/* --- bytes ---------------------------------------------------------------------------------------------- */

static inline int takes(Reader *reader, const char *expected, size_t length)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, expected, length) != 0)
        return 0;
    reader->at += length;
    return 1;
}

#define TAKES(reader, text) takes(reader, text, sizeof(text) - 1)

/* Whether all bytes are ASCII that JSON has in strings as it is. Without a jump, so that it can be vectorized. */
static inline int is_plain(const char *text, Py_ssize_t length)
{
    unsigned char is_odd = 0;
    for (Py_ssize_t i = 0; i < length; i++)
        is_odd |= ((signed char)text[i] < 0x20) | (text[i] == '\\');
    return !is_odd;
}

/* Find a string's text behind its opening quote, and go behind the closing one. */
static inline const char *take_text(Reader *reader, Py_ssize_t *length)
{
    const char *text = reader->at;
    const char *quote = memchr(text, '"', (size_t)(reader->end - text));
    if (quote == NULL || !is_plain(text, quote - text))
        return NULL;
    *length = quote - text;
    reader->at = quote + 1;
    return text;
}

/* --- objects: NULL without an exception is "not plain" ---------------------------------------------------- */

static PyObject *take_value(Reader *reader)
{
    Py_ssize_t length;
    const char *text = take_text(reader, &length);
    if (text == NULL)
        return NULL;
    PyObject *value = PyUnicode_New(length, 127);
    if (value != NULL)
        memcpy(PyUnicode_1BYTE_DATA(value), text, (size_t)length);
    return value;
}

static PyObject *take_name(Reader *reader)
{
    Reader before = *reader;
    Py_ssize_t length;
    const char *text = take_text(reader, &length);
    if (text == NULL || length > LONGEST_NAME)
        return NULL;
    unsigned hash = (unsigned)length;
    for (Py_ssize_t i = 0; i < length; i++)
        hash = hash * 31 + (unsigned char)text[i];
    PyObject **known = &known_names[hash % KNOWN];
    PyObject *name = *known;
    if (name != NULL && PyUnicode_GET_LENGTH(name) == length
        && memcmp(PyUnicode_1BYTE_DATA(name), text, (size_t)length) == 0)
        return Py_NewRef(name);
    *reader = before;
    name = take_value(reader);
    if (name != NULL)
        Py_XSETREF(*known, Py_NewRef(name));
    return name;
}

/* {"k":{"S":"..."},"v":{"B":"..."}}: a key, and else bytes alone. */
static PyObject *take_item(Reader *reader)
{
    if (!TAKES(reader, "{\""))
        return NULL;
    PyObject *item = PyDict_New();
    if (item == NULL)
        return NULL;
    Py_ssize_t count = 0;
    do {
        PyObject *name = take_name(reader);
        if (name == NULL)
            goto refused;
        int is_key = PyUnicode_GET_LENGTH(name) == 1 && *PyUnicode_1BYTE_DATA(name) == 'k';
        int is_typed = is_key ? TAKES(reader, ":{\"S\":\"") : TAKES(reader, ":{\"B\":\"");
        PyObject *value = is_typed ? take_value(reader) : NULL;
        int failed = value == NULL || PyDict_SetItem(item, name, value) < 0;
        Py_DECREF(name);
        Py_XDECREF(value);
        if (failed || !TAKES(reader, "}"))
            goto refused;
        count++;
    } while (TAKES(reader, ",\""));
    if (TAKES(reader, "}") && PyDict_GET_SIZE(item) == count) /* no name twice */
        return item;
refused:
    Py_DECREF(item);
    return NULL;
}

static PyObject *take_items(Reader *reader)
{
    PyObject *items = PyList_New(0);
    if (items == NULL || TAKES(reader, "]"))
        return items;
    do {
        PyObject *item = take_item(reader);
        if (item == NULL || PyList_Append(items, item) < 0) {
            Py_XDECREF(item);
            Py_DECREF(items);
            return NULL;
        }
        Py_DECREF(item);
    } while (TAKES(reader, ","));
    if (TAKES(reader, "]"))
        return items;
    Py_DECREF(items);
    return NULL;
}

static PyObject *take_tables(Reader *reader)
{
    PyObject *tables = PyDict_New();
    if (tables == NULL || TAKES(reader, "}"))
        return tables;
    Py_ssize_t count = 0;
    do {
        PyObject *name = TAKES(reader, "\"") ? take_name(reader) : NULL;
        PyObject *items = name != NULL && TAKES(reader, ":[") ? take_items(reader) : NULL;
        int failed = items == NULL || PyDict_SetItem(tables, name, items) < 0;
        Py_XDECREF(name);
        Py_XDECREF(items);
        if (failed)
            goto refused;
        count++;
    } while (TAKES(reader, ","));
    if (TAKES(reader, "}") && PyDict_GET_SIZE(tables) == count)
        return tables;
refused:
    Py_DECREF(tables);
    return NULL;
}

/* Both orders of the answer's two members, whose service has been seen to give either. */
static PyObject *take_answer(Reader *reader)
{
    int is_behind = TAKES(reader, "{\"UnprocessedKeys\":{},\"Responses\":{");
    if (!is_behind && !TAKES(reader, "{\"Responses\":{"))
        return NULL;
    PyObject *tables = take_tables(reader);
    if (tables == NULL)
        return NULL;
    int is_ended = is_behind ? TAKES(reader, "}") : TAKES(reader, ",\"UnprocessedKeys\":{}}") || TAKES(reader, "}");
    if (is_ended && reader->at == reader->end)
        return tables;
    Py_DECREF(tables);
    return NULL;
}

/* --- the module ------------------------------------------------------------------------------------------ */

static PyObject *plain_items(PyObject *module, PyObject *answer)
{
    (void)module;
    Py_buffer bytes;
    if (PyObject_GetBuffer(answer, &bytes, PyBUF_SIMPLE) < 0)
        return NULL;
    const char *start = bytes.buf;
    Reader reader = {start, start + bytes.len};
    PyObject *tables = take_answer(&reader);
    PyBuffer_Release(&bytes);
    if (tables == NULL && !PyErr_Occurred())
        Py_RETURN_NONE;
    return tables;
}

static PyMethodDef methods[] = {
    {"plain_items", plain_items, METH_O, "Return the items of a plain answer by table; None if it isn't plain."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_plain_items", "The items of plain answers.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__plain_items(void)
{
    return PyModuleDef_Init(&definition);
}
