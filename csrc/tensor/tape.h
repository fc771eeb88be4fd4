/* The tape: what each operation leaves behind so that gradients can be computed.
 *
 * A tensor that wants a gradient has a `variable`, the gradient's side of it. An operation on such
 * tensors leaves a `node`: the variables of its inputs, what it saved, and its backward function.
 * Output variables own the node, the node owns the input variables: dropping the loss frees all.
 *
 * How an operation is written (forward and backward stand in one file):
 *
 *     attn_status attn_relu(attn_tensor **y, attn_tensor *x)
 *     {
 *         attn_tensor *out = NULL;
 *         ATTN_TRY(attn_tensor_empty_like(&out, x));
 *         ... compute ...
 *         attn_status status = attn_record(&relu_op, 1, &x, 1, &out, NULL, (attn_tensor *[]){out}, 1);
 *         if (status != ATTN_OK) { attn_tensor_release(out); return status; }
 *         *y = out;
 *         return ATTN_OK;
 *     }
 */
#ifndef ATTN_TAPE_H
#define ATTN_TAPE_H

#include "tensor.h"

enum { ATTN_MAX_SAVED = 12 };
#define ATTN_TURNED_OFF UINT64_MAX

/* Computes the gradients of the inputs. dy[i] is NULL where output i got no gradient (never for
 * all). For each input j with attn_node_wants(node, j), sets dx[j] to a new tensor of the input's
 * shape (any layout), or leaves it NULL where the gradient is zero. On failure it may leave tensors
 * in dx; the walk releases them. dy is not to be changed. */
typedef attn_status (*attn_backward)(attn_node *node, attn_tensor *const *dy, attn_tensor **dx);

/* What all nodes of an operation share; one static object an operation. */
typedef struct {
    const char *name;
    attn_backward backward;
    size_t parameter_bytes; /* size of the struct of options that attn_record copies */
} attn_operation;

struct attn_node {
    _Atomic int64_t references;
    const attn_operation *operation;
    uint64_t sequence; /* creation order, a topological order */
    int input_count, output_count, saved_count;
    attn_variable **inputs;  /* owned; NULL where no gradient is wanted */
    attn_variable **outputs; /* not owned; NULL once the variable is gone */
    attn_tensor *saved[ATTN_MAX_SAVED]; /* owned, without their variables */
    uint64_t saved_version[ATTN_MAX_SAVED];
    bool freed; /* a backward walk has released what was saved */
    void *parameters;
    attn_node *next_dead;
};

/* A gradient hook: may replace the gradient by setting *replacement (owned by the caller then). */
typedef struct attn_hook {
    attn_status (*call)(void *context, attn_tensor *gradient, attn_tensor **replacement);
    void (*destroy)(void *context);
    void *context;
    uint64_t id;
    _Atomic int64_t references; /* its variable's, and of walks that are calling it */
    struct attn_hook *next;
} attn_hook;

struct attn_variable {
    _Atomic int64_t references;
    attn_node *node; /* owned; NULL for a leaf */
    int output;
    bool retains_grad;
    int ndim;
    int64_t shape[ATTN_MAX_DIMS];
    /* Guarded by a lock of all variables, for a walk runs without Python's. */
    attn_tensor *grad; /* of a leaf, or retained; owned */
    attn_hook *hooks;
    _Atomic uint64_t since; /* of a leaf: when it was turned on; ATTN_TURNED_OFF: it is not */
    /* The thread whose walk gathers here, which alone touches the two below; 0: none does. */
    _Atomic uint64_t thread;
    const void *walk;     /* its walk that does */
    attn_tensor *pending; /* owned */
};

/* Per thread: whether operations leave nodes. */
bool attn_grad_enabled(void);
void attn_set_grad_enabled(bool enabled);

/* An operation asks more than once whether a gradient is wanted: before its work, for what only a
 * backward pass reads, and at its end. Another thread may turn one on in between. So what is turned
 * on after attn_work_begin, called with Python's lock held, does not count for the calling thread
 * until attn_work_end, which takes what attn_work_begin returned. */
uint64_t attn_work_begin(void);
void attn_work_end(uint64_t before);

/* x's variable as operations are to see it; NULL: no gradient is wanted. */
attn_variable *attn_wanted(const attn_tensor *x);
/* Whether an operation on these tensors has to leave a node (NULL entries are allowed). */
bool attn_needs_grad(int count, attn_tensor *const *inputs);

/* Leaves a node if one is needed, else does nothing. inputs and saved may hold NULLs. A saved
 * tensor is kept as it is now: an in-place write before backward is an error there. */
attn_status attn_record(const attn_operation *operation, int input_count, attn_tensor *const *inputs,
                        int output_count, attn_tensor *const *outputs, const void *parameters,
                        attn_tensor *const *saved, int saved_count);
/* The same with so many bytes of parameters, however many the operation has. */
attn_status attn_record_sized(const attn_operation *operation, int input_count,
                              attn_tensor *const *inputs, int output_count,
                              attn_tensor *const *outputs, const void *parameters, size_t bytes,
                              attn_tensor *const *saved, int saved_count);

static inline bool attn_node_wants(const attn_node *node, int input)
{
    return node->inputs[input] != NULL;
}

/* What input j has gathered from other operations, for one that would rather add its share there
 * than hand it over (and leaves dx[j] NULL then). NULL where there is nothing yet, or in another
 * layout, or where somebody else reads it. */
attn_tensor *attn_node_gathered(const attn_node *node, int input, attn_layout layout);

/* Leaf or not, makes x want a gradient (or, for a leaf, no longer want one: its variable is parked
 * then, with its gradient and hooks, for the tape may still hold it). */
attn_status attn_set_requires_grad(attn_tensor *x, bool wanted);
/* x's variable, wanted or parked. */
attn_variable *attn_kept_variable(const attn_tensor *x);
/* A tensor on the same storage that wants no gradient. */
attn_status attn_detach(attn_tensor **y, const attn_tensor *x);

attn_variable *attn_variable_retain(attn_variable *variable);
void attn_variable_release(attn_variable *variable);

/* What the variable keeps as its gradient, retained; NULL: nothing. */
attn_tensor *attn_variable_grad(const attn_variable *variable);
/* Takes grad over, in place of what was there. */
void attn_variable_set_grad(attn_variable *variable, attn_tensor *grad);

attn_status attn_variable_add_hook(attn_variable *variable, attn_hook *hook, uint64_t *id);
void attn_variable_remove_hook(attn_variable *variable, uint64_t id);
/* The first hook that was added after the one of this number, retained; NULL: there is none. */
attn_hook *attn_variable_hook_after(const attn_variable *variable, uint64_t id);
void attn_hook_release(attn_hook *hook);

/* Adds the gradient of y (gradient: NULL for 1, allowed where y has one element) to the `grad` of
 * every leaf below. Frees what was saved unless retain_graph. */
attn_status attn_backward_walk(attn_tensor *y, attn_tensor *gradient, bool retain_graph);

#endif
