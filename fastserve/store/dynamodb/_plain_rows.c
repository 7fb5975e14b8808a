/* The rows of a BatchGetItem's answer, put where they are waited for, if the answer is as plain as answers are.
 *
 * fastserve/store/dynamodb/plain_rows.py says what plain is. Anything else is left to a JSON parser: whatever this
 * reader doesn't expect it refuses, and it never guesses. What it gains over a general parser is that it makes
 * a string for each row, and nothing else: no dictionaries, no keys, no names.
 *
 * Invariants
 * 1. Whatever is put in place is what the document that a JSON parser makes of the same bytes has for that key
 *    and place.
 * 2. No byte behind the buffer's end is read.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <string.h>

enum {
    KNOWN_NAMES = 256, /* that are kept as strings, by a hash of their text: a power of two */
    KNOWN_KEYS = 16,   /* of a group, whose lists are remembered by their last byte */
    LONGEST_NAME = 255, /* of a table or an attribute */
};

typedef struct {
    const char *at, *end;
} Reader;

typedef struct {
    const char *text;
    Py_ssize_t length;
} Text;

/* One group of tables: where its rows belong. All objects are borrowed from the caller's. */
typedef struct {
    PyObject *slots;      /* dict: the place of a table's rows, or of an attribute's */
    PyObject *table;      /* of a bundle, whose rows are its items' attributes; else NULL */
    PyObject *rows_of;    /* dict: by key the list that is to be filled */
    Py_ssize_t count;     /* of places */
    char *is_seen;        /* by place, or in the first for a bundle: the table has stood in the answer */
    Text keys[KNOWN_KEYS]; /* the same keys come again with each table */
    PyObject *rows[KNOWN_KEYS];
} Group;

/* Names come again with each answer; making a string of one takes longer than all else that is done for it. */
static PyObject *known_names[KNOWN_NAMES];

static PyObject *no_row; /* stands for an item without a row in it */

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
static inline int take_text(Reader *reader, Text *out)
{
    const char *text = reader->at;
    const char *quote = memchr(text, '"', (size_t)(reader->end - text));
    if (quote == NULL || !is_plain(text, quote - text))
        return 0;
    *out = (Text){text, quote - text};
    reader->at = quote + 1;
    return 1;
}

static inline int is_same(Text one, Text other)
{
    return one.length == other.length && memcmp(one.text, other.text, (size_t)one.length) == 0;
}

static inline int is_letter(Text name, char letter)
{
    return name.length == 1 && *name.text == letter;
}

/* --- objects -------------------------------------------------------------------------------------------- */

static PyObject *string_of(Text text)
{
    PyObject *string = PyUnicode_New(text.length, 127);
    if (string != NULL)
        memcpy(PyUnicode_1BYTE_DATA(string), text.text, (size_t)text.length);
    return string;
}

/* A name's string, borrowed until the next call; NULL without an exception where it is too long. */
static PyObject *name_of(Text text)
{
    if (text.length > LONGEST_NAME)
        return NULL;
    unsigned hash = (unsigned)text.length;
    for (Py_ssize_t i = 0; i < text.length; i++)
        hash = hash * 31 + (unsigned char)text.text[i];
    PyObject **known = &known_names[hash % KNOWN_NAMES];
    if (*known != NULL && is_same((Text){(char *)PyUnicode_1BYTE_DATA(*known), PyUnicode_GET_LENGTH(*known)}, text))
        return *known;
    PyObject *name = string_of(text);
    if (name != NULL)
        Py_XSETREF(*known, name);
    return name;
}

/* The place of a table or an attribute; -1 where it has none, -2 with an exception. */
static Py_ssize_t slot_of(const Group *group, PyObject *name)
{
    PyObject *slot = PyDict_GetItemWithError(group->slots, name);
    if (slot == NULL)
        return PyErr_Occurred() ? -2 : -1;
    Py_ssize_t place = PyLong_AsSsize_t(slot);
    if (place == -1 && PyErr_Occurred())
        return -2;
    return 0 <= place && place < group->count ? place : -1;
}

/* The list of a key, borrowed; NULL where nobody asked for it. */
static PyObject *list_of(Group *group, Text key)
{
    unsigned last = key.length > 0 ? (unsigned char)key.text[key.length - 1] : 0;
    unsigned place = last % KNOWN_KEYS;
    if (group->rows[place] != NULL && is_same(group->keys[place], key))
        return group->rows[place];
    PyObject *string = string_of(key);
    if (string == NULL)
        return NULL;
    PyObject *rows = PyDict_GetItemWithError(group->rows_of, string);
    Py_DECREF(string);
    if (rows == NULL || !PyList_CheckExact(rows) || PyList_GET_SIZE(rows) != group->count)
        return NULL;
    group->keys[place] = key;
    group->rows[place] = rows;
    return rows;
}

/* --- items: 0 without an exception is "not plain" --------------------------------------------------------- */

/* "name":{"B":"..." or, of the key, "S", up to the closing bracket */
static inline int take_attribute(Reader *reader, Text *name, Text *value)
{
    if (!take_text(reader, name))
        return 0;
    int is_typed = is_letter(*name, 'k') ? TAKES(reader, ":{\"S\":\"") : TAKES(reader, ":{\"B\":\"");
    return is_typed && take_text(reader, value) && TAKES(reader, "}");
}

/* {"k":{"S":"..."},"v":{"B":"..."}}: a key, a row, and perhaps other bytes. */
static int take_row(Reader *reader, Group *group, Py_ssize_t slot)
{
    Text name, value, key = {NULL, 0}, row = {NULL, 0};
    if (!TAKES(reader, "{\""))
        return 0;
    do {
        if (!take_attribute(reader, &name, &value))
            return 0;
        Text *kept = is_letter(name, 'k') ? &key : is_letter(name, 'v') ? &row : NULL;
        if (kept != NULL && kept->text != NULL)
            return 0;
        if (kept != NULL)
            *kept = value;
    } while (TAKES(reader, ",\""));
    PyObject *rows = TAKES(reader, "}") && key.text != NULL ? list_of(group, key) : NULL;
    if (rows == NULL)
        return 0;
    PyObject *string = row.text == NULL ? Py_NewRef(no_row) : string_of(row);
    return string != NULL && PyList_SetItem(rows, slot, string) == 0;
}

/* {"k":{"S":"..."},"one":{"B":"..."},"two":{"B":"..."}}: a key, and a row in each attribute. */
static int take_bundle(Reader *reader, Group *group)
{
    Text name, value, key = {NULL, 0};
    PyObject *found = PyList_New(group->count);
    if (found == NULL)
        return 0;
    if (!TAKES(reader, "{\""))
        goto refused;
    do {
        if (!take_attribute(reader, &name, &value))
            goto refused;
        if (is_letter(name, 'k')) {
            if (key.text != NULL)
                goto refused;
            key = value;
            continue;
        }
        PyObject *attribute = name_of(name);
        Py_ssize_t slot = attribute == NULL ? -2 : slot_of(group, attribute);
        if (slot == -1)
            continue;
        PyObject *row = slot < 0 || PyList_GET_ITEM(found, slot) != NULL ? NULL : string_of(value);
        if (row == NULL)
            goto refused;
        PyList_SET_ITEM(found, slot, row);
    } while (TAKES(reader, ",\""));
    PyObject *rows = TAKES(reader, "}") && key.text != NULL ? list_of(group, key) : NULL;
    if (rows == NULL)
        goto refused;
    for (Py_ssize_t i = 0; i < group->count; i++) {
        PyObject *row = PyList_GET_ITEM(found, i);
        if (PyList_SetItem(rows, i, Py_NewRef(row == NULL ? Py_None : row)) < 0)
            goto refused;
    }
    Py_DECREF(found);
    return 1;
refused:
    Py_DECREF(found);
    return 0;
}

/* --- tables --------------------------------------------------------------------------------------------- */

/* The group that a table is of, and the place of its rows there; NULL where nobody asked for it. */
static Group *group_of(Group *groups, Py_ssize_t count, PyObject *table, Py_ssize_t *slot)
{
    for (Group *group = groups; group < groups + count; group++) {
        *slot = -1;
        if (group->table == NULL) {
            *slot = slot_of(group, table);
        } else {
            int is_own = PyObject_RichCompareBool(group->table, table, Py_EQ);
            *slot = is_own > 0 ? 0 : is_own - 1;
        }
        if (*slot >= 0)
            return group;
        if (*slot == -2)
            return NULL;
    }
    return NULL;
}

static int take_table(Reader *reader, Group *groups, Py_ssize_t count)
{
    Text text;
    if (!TAKES(reader, "\"") || !take_text(reader, &text) || !TAKES(reader, ":["))
        return 0;
    PyObject *table = name_of(text);
    Py_ssize_t slot;
    Group *group = table == NULL ? NULL : group_of(groups, count, table, &slot);
    if (group == NULL || group->is_seen[slot])
        return 0;
    group->is_seen[slot] = 1;
    if (TAKES(reader, "]"))
        return 1;
    do {
        if (!(group->table == NULL ? take_row(reader, group, slot) : take_bundle(reader, group)))
            return 0;
    } while (TAKES(reader, ","));
    return TAKES(reader, "]");
}

static int take_tables(Reader *reader, Group *groups, Py_ssize_t count)
{
    if (TAKES(reader, "}"))
        return 1;
    do {
        if (!take_table(reader, groups, count))
            return 0;
    } while (TAKES(reader, ","));
    return TAKES(reader, "}");
}

/* Both orders of the answer's two members, whose service has been seen to give either. */
static int take_answer(Reader *reader, Group *groups, Py_ssize_t count)
{
    int is_behind = TAKES(reader, "{\"UnprocessedKeys\":{},\"Responses\":{");
    if (!is_behind && !TAKES(reader, "{\"Responses\":{"))
        return 0;
    if (!take_tables(reader, groups, count))
        return 0;
    int is_ended = is_behind ? TAKES(reader, "}") : TAKES(reader, ",\"UnprocessedKeys\":{}}") || TAKES(reader, "}");
    return is_ended && reader->at == reader->end;
}

/* --- the module ------------------------------------------------------------------------------------------ */

static int read_group(PyObject *given, Group *group)
{
    if (!PyTuple_CheckExact(given) || PyTuple_GET_SIZE(given) != 3) {
        PyErr_SetString(PyExc_TypeError, "fill_rows: expected groups of slots, a bundle's table and rows by key");
        return 0;
    }
    PyObject *table = PyTuple_GET_ITEM(given, 1);
    group->slots = PyTuple_GET_ITEM(given, 0);
    group->table = table == Py_None ? NULL : table;
    group->rows_of = PyTuple_GET_ITEM(given, 2);
    if (!PyDict_CheckExact(group->slots) || !PyDict_CheckExact(group->rows_of)
        || (table != Py_None && !PyUnicode_CheckExact(table))) {
        PyErr_SetString(PyExc_TypeError, "fill_rows: expected a dict, a str or None, and a dict in each group");
        return 0;
    }
    group->count = PyDict_GET_SIZE(group->slots);
    return 1;
}

static PyObject *fill_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t given)
{
    (void)module;
    if (given != 2 || !PyList_CheckExact(arguments[1])) {
        PyErr_SetString(PyExc_TypeError, "fill_rows: expected an answer and a list of groups");
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(arguments[1]), slots = 0;
    Group *groups = PyMem_Calloc((size_t)count + 1, sizeof *groups);
    if (groups == NULL)
        return PyErr_NoMemory();
    int is_filled = 0;
    char *is_seen = NULL;
    Py_buffer bytes = {.obj = NULL};
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!read_group(PyList_GET_ITEM(arguments[1], i), &groups[i]))
            goto ended;
        slots += groups[i].count + 1;
    }
    is_seen = PyMem_Calloc((size_t)slots + 1, 1);
    if (is_seen == NULL) {
        PyErr_NoMemory();
        goto ended;
    }
    slots = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        groups[i].is_seen = is_seen + slots;
        slots += groups[i].count + 1;
    }
    if (PyObject_GetBuffer(arguments[0], &bytes, PyBUF_SIMPLE) == 0) {
        const char *start = bytes.buf;
        Reader reader = {start, start + bytes.len};
        is_filled = take_answer(&reader, groups, count);
        PyBuffer_Release(&bytes);
    }
ended:
    PyMem_Free(is_seen);
    PyMem_Free(groups);
    if (PyErr_Occurred())
        return NULL;
    return PyBool_FromLong(is_filled);
}

static PyMethodDef methods[] = {
    {"fill_rows", (PyCFunction)(void (*)(void))fill_rows, METH_FASTCALL,
     "Put the rows of a plain answer in their places; False if it isn't plain."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module)
{
    (void)module;
    no_row = PyUnicode_FromStringAndSize("", 0);
    return no_row == NULL ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_plain_rows", "The rows of plain answers.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__plain_rows(void)
{
    return PyModuleDef_Init(&definition);
}
