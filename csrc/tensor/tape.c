#include "tape.h"

#include "../base/forks.h"
#include "../base/memory.h"

#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all variables' grad and hooks */
static _Atomic uint64_t next_sequence;
static _Atomic uint64_t next_hook;
static _Thread_local bool grad_disabled;
static _Atomic uint64_t turned_on; /* how often a leaf was */
/* What that was when the operation under way began. */
static _Thread_local uint64_t began = UINT64_MAX;

bool attn_grad_enabled(void) { return !grad_disabled; }
void attn_set_grad_enabled(bool enabled) { grad_disabled = !enabled; }

uint64_t attn_work_begin(void)
{
    uint64_t before = began;
    began = atomic_load(&turned_on);
    return before;
}

void attn_work_end(uint64_t before) { began = before; }

attn_variable *attn_wanted(const attn_tensor *x)
{
    attn_variable *variable = x->variable;
    return variable && variable->since <= began ? variable : NULL;
}

attn_variable *attn_kept_variable(const attn_tensor *x)
{
    attn_variable *variable = x->variable;
    return variable ? variable : x->parked;
}

bool attn_needs_grad(int count, attn_tensor *const *inputs)
{
    if (grad_disabled)
        return false;
    for (int i = 0; i < count; i++)
        if (inputs[i] && attn_wanted(inputs[i]))
            return true;
    return false;
}

static attn_status variable_new(attn_variable **variable, const attn_tensor *x)
{
    attn_variable *v = attn_object(1, sizeof *v);
    if (!v)
        return ATTN_NO_MEMORY;
    v->references = 1;
    v->ndim = x->ndim;
    memcpy(v->shape, x->shape, sizeof v->shape);
    *variable = v;
    return ATTN_OK;
}

attn_status attn_set_requires_grad(attn_tensor *x, bool wanted)
{
    attn_variable *variable = attn_kept_variable(x);
    if (wanted == (x->variable != NULL))
        return ATTN_OK;
    if (!wanted && variable->node)
        return attn_fail(ATTN_BAD_STATE, "requires_grad can only be turned off on a leaf tensor; "
                                         "use detach() on the result of an operation");
    if (!variable)
        ATTN_TRY(variable_new(&variable, x));
    variable->since = wanted ? atomic_fetch_add(&turned_on, 1) + 1 : ATTN_TURNED_OFF;
    x->parked = wanted ? NULL : variable;
    x->variable = wanted ? variable : NULL;
    return ATTN_OK;
}

attn_variable *attn_variable_retain(attn_variable *variable)
{
    if (variable)
        atomic_fetch_add_explicit(&variable->references, 1, memory_order_relaxed);
    return variable;
}

ATTN_FREE_ACROSS_FORKS(lock)

attn_tensor *attn_variable_grad(const attn_variable *variable)
{
    pthread_mutex_lock(&lock);
    attn_tensor *grad = attn_tensor_retain(variable->grad);
    pthread_mutex_unlock(&lock);
    return grad;
}

void attn_variable_set_grad(attn_variable *variable, attn_tensor *grad)
{
    pthread_mutex_lock(&lock);
    attn_tensor *before = variable->grad;
    variable->grad = grad;
    pthread_mutex_unlock(&lock);
    attn_tensor_release(before);
}

void attn_hook_release(attn_hook *hook)
{
    if (atomic_fetch_sub(&hook->references, 1) != 1)
        return;
    if (hook->destroy)
        hook->destroy(hook->context);
    attn_object_free(hook);
}

static void node_drop_saved(attn_node *node)
{
    for (int i = 0; i < node->saved_count; i++) {
        attn_tensor_release(node->saved[i]);
        node->saved[i] = NULL;
    }
}

/* Nodes that nobody owns wait in this list while one is freed: a long chain of operations would
 * otherwise overflow the stack. */
static _Thread_local attn_node *dead_nodes;
static _Thread_local bool burying;

static void node_release(attn_node *node)
{
    if (!node || atomic_fetch_sub(&node->references, 1) != 1)
        return;
    node->next_dead = dead_nodes;
    dead_nodes = node;
    if (burying)
        return;
    burying = true;
    while (dead_nodes) {
        attn_node *dead = dead_nodes;
        dead_nodes = dead->next_dead;
        node_drop_saved(dead);
        for (int i = 0; i < dead->input_count; i++)
            attn_variable_release(dead->inputs[i]);
        attn_object_free(dead->inputs);
        attn_object_free(dead->outputs);
        attn_object_free(dead->parameters);
        attn_object_free(dead);
    }
    burying = false;
}

void attn_variable_release(attn_variable *variable)
{
    if (!variable || atomic_fetch_sub(&variable->references, 1) != 1)
        return;
    if (variable->node) {
        variable->node->outputs[variable->output] = NULL;
        node_release(variable->node);
    }
    attn_tensor_release(variable->grad);
    attn_tensor_release(variable->pending);
    for (attn_hook *hook = variable->hooks; hook;) {
        attn_hook *next = hook->next;
        attn_hook_release(hook);
        hook = next;
    }
    attn_object_free(variable);
}

attn_status attn_variable_add_hook(attn_variable *variable, attn_hook *hook, uint64_t *id)
{
    attn_hook *copy = attn_object(1, sizeof *copy);
    if (!copy)
        return ATTN_NO_MEMORY;
    copy->call = hook->call;
    copy->destroy = hook->destroy;
    copy->context = hook->context;
    copy->references = 1;
    pthread_mutex_lock(&lock);
    copy->id = *id = atomic_fetch_add(&next_hook, 1) + 1;
    attn_hook **end = &variable->hooks;
    while (*end)
        end = &(*end)->next;
    *end = copy;
    pthread_mutex_unlock(&lock);
    return ATTN_OK;
}

void attn_variable_remove_hook(attn_variable *variable, uint64_t id)
{
    attn_hook *gone = NULL;
    pthread_mutex_lock(&lock);
    for (attn_hook **at = &variable->hooks; *at; at = &(*at)->next) {
        if ((*at)->id == id) {
            gone = *at;
            *at = gone->next;
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    if (gone) /* which may run Python */
        attn_hook_release(gone);
}

attn_hook *attn_variable_hook_after(const attn_variable *variable, uint64_t id)
{
    pthread_mutex_lock(&lock);
    attn_hook *hook = variable->hooks; /* whose numbers grow along the list */
    while (hook && hook->id <= id)
        hook = hook->next;
    if (hook)
        atomic_fetch_add(&hook->references, 1);
    pthread_mutex_unlock(&lock);
    return hook;
}

static attn_node *node_new(const attn_operation *operation, int input_count, int output_count,
                           size_t parameter_bytes)
{
    attn_node *node = attn_object(1, sizeof *node);
    if (!node)
        return NULL;
    node->references = 1;
    node->operation = operation;
    node->sequence = atomic_fetch_add(&next_sequence, 1);
    node->inputs = attn_object((size_t)input_count + 1, sizeof *node->inputs);
    node->outputs = attn_object((size_t)output_count + 1, sizeof *node->outputs);
    node->parameters = attn_object(1, parameter_bytes + 1);
    if (!node->inputs || !node->outputs || !node->parameters) {
        node_release(node);
        return NULL;
    }
    node->input_count = input_count;
    node->output_count = output_count;
    return node;
}

attn_status attn_record(const attn_operation *operation, int input_count, attn_tensor *const *inputs,
                        int output_count, attn_tensor *const *outputs, const void *parameters,
                        attn_tensor *const *saved, int saved_count)
{
    return attn_record_sized(operation, input_count, inputs, output_count, outputs, parameters,
                             operation->parameter_bytes, saved, saved_count);
}

attn_status attn_record_sized(const attn_operation *operation, int input_count,
                              attn_tensor *const *inputs, int output_count,
                              attn_tensor *const *outputs, const void *parameters, size_t bytes,
                              attn_tensor *const *saved, int saved_count)
{
    if (!attn_needs_grad(input_count, inputs))
        return ATTN_OK;
    attn_node *node = node_new(operation, input_count, output_count, bytes);
    if (!node)
        return ATTN_NO_MEMORY;
    attn_status status = ATTN_OK;
    for (int i = 0; i < input_count; i++)
        node->inputs[i] = inputs[i] ? attn_variable_retain(attn_wanted(inputs[i])) : NULL;
    if (parameters)
        memcpy(node->parameters, parameters, bytes);
    /* Saved tensors are kept as detached twins: an output saved by its own node would otherwise own
     * its variable, which owns the node: a cycle that is never freed. */
    node->saved_count = saved_count;
    for (int i = 0; i < saved_count; i++) {
        if (!saved[i])
            continue;
        ATTN_GOTO(attn_detach(&node->saved[i], saved[i]));
        node->saved_version[i] = saved[i]->storage->version;
    }
    for (int i = 0; i < output_count; i++) {
        attn_variable *variable;
        ATTN_GOTO(variable_new(&variable, outputs[i]));
        variable->node = node;
        variable->output = i;
        node->outputs[i] = variable;
        atomic_fetch_add(&node->references, 1);
        outputs[i]->variable = variable;
    }
done:
    node_release(node); /* the outputs own it now */
    return status;
}

void attn_node_free_saved(attn_node *node)
{
    node_drop_saved(node);
    node->freed = true;
}
