/* The extension module attnnet._core: the list of function tables, and its start. */
#define ATTN_IMPORTS_NUMPY
#include "binding.h"

#include "../base/cpu.h"
#include "../base/threads.h"
#include "../conv/plan.h"

/* Asked between operations of a backward walk, without the GIL held: has Ctrl-C been pressed? */
static bool python_interrupted(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    bool interrupted = PyErr_CheckSignals() != 0;
    PyGILState_Release(gil);
    return interrupted;
}

static PyMethodDef *const tables[] = {
    bind_tensor_functions,
    bind_elementwise_functions,
    bind_shape_functions,
    bind_dense_functions,
    bind_convolution_functions,
    bind_blocks_functions,
    bind_data_functions,
    bind_optim_functions,
    bind_attention_functions,
    bind_system_functions,
    bind_measure_functions,
};

static int execute(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "attnnet does not run in sub-interpreters");
        return -1;
    }
    if (attn_tensor_type) { /* one type of tensors, which all of C knows */
        PyErr_SetString(PyExc_ImportError, "attnnet._core is loaded already, and cannot be loaded "
                        "a second time into one process");
        return -1;
    }
    import_array1(-1);
    attn_status status = attn_isa_select(getenv("ATTNNET_ISA"));
    if (status == ATTN_OK)
        status = attn_conv_force(getenv("ATTNNET_CONVOLUTION"));
    if (status != ATTN_OK) {
        PyErr_SetString(PyExc_ImportError, attn_message());
        return -1;
    }
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (PyModule_AddFunctions(module, tables[i]) < 0)
            return -1;
    if (bind_tensor_type(module) != ATTN_OK)
        return -1;
    attn_set_interrupt_poll(python_interrupted);
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#ifdef Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_core",
    .m_doc = "The C core of attnnet. Use the attnnet package: it checks and documents.",
    .m_size = 0,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&definition);
}
