/* The backward walk: nodes in the reverse order of their creation, gradients gathered on the way. */
#include "../base/memory.h"
#include "../base/profile.h"
#include "../base/threads.h"
#include "../ops/ops.h"
#include "tape.h"

#include <pthread.h>
#include <string.h>

void attn_node_free_saved(attn_node *node); /* tape.c */

static _Atomic uint64_t last_name;
static _Thread_local uint64_t me; /* the thread's name; 0 until its first walk */
/* In a forked child: the last name given before the fork, and the one thread that lived on. What
 * the others had claimed is free. */
static uint64_t lost_up_to, survivor;

static void after_fork(void)
{
    lost_up_to = atomic_load(&last_name);
    survivor = me;
}

__attribute__((constructor)) static void mind_forks(void)
{
    pthread_atfork(NULL, NULL, after_fork);
}

static bool is_lost(uint64_t thread) { return thread <= lost_up_to && thread != survivor; }

static bool is_mine(const attn_variable *variable)
{
    return atomic_load_explicit(&variable->thread, memory_order_relaxed) == me;
}

typedef struct {
    void **items;
    int64_t count, capacity;
} list;

static attn_status append(list *l, void *item)
{
    if (l->count == l->capacity) {
        int64_t capacity = l->capacity ? 2 * l->capacity : 64;
        void **items = attn_object_grow(l->items, (size_t)capacity * sizeof *items);
        if (!items)
            return ATTN_NO_MEMORY;
        l->items = items;
        l->capacity = capacity;
    }
    l->items[l->count++] = item;
    return ATTN_OK;
}

/* A heap of nodes still to be visited, the youngest on top. */
typedef list node_heap;

static uint64_t sequence_at(const node_heap *heap, int64_t i)
{
    const attn_node *node = heap->items[i];
    return node->sequence;
}

static attn_status heap_push(node_heap *heap, attn_node *node)
{
    ATTN_TRY(append(heap, node));
    int64_t i = heap->count - 1;
    while (i > 0 && sequence_at(heap, (i - 1) / 2) < node->sequence) {
        heap->items[i] = heap->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap->items[i] = node;
    return ATTN_OK;
}

static attn_node *heap_pop(node_heap *heap)
{
    attn_node *top = heap->items[0], *last = heap->items[--heap->count];
    int64_t i = 0;
    for (;;) {
        int64_t child = 2 * i + 1;
        if (child >= heap->count)
            break;
        if (child + 1 < heap->count &&
            sequence_at(heap, child + 1) > sequence_at(heap, child))
            child++;
        if (sequence_at(heap, child) <= last->sequence)
            break;
        heap->items[i] = heap->items[child];
        i = child;
    }
    if (heap->count > 0)
        heap->items[i] = last;
    return top;
}

static bool owned_alone(const attn_tensor *x)
{
    return x->references == 1 && x->storage->references == 1;
}

attn_tensor *attn_node_gathered(const attn_node *node, int input, attn_layout layout)
{
    const attn_variable *variable = node->inputs[input];
    attn_tensor *gathered = variable && is_mine(variable) ? variable->pending : NULL;
    return gathered && gathered->layout == layout && owned_alone(gathered) ? gathered : NULL;
}

static attn_status add_into(attn_tensor *target, attn_tensor *gradient)
{
    attn_tensor *other;
    ATTN_TRY(attn_tensor_as(&other, gradient, target->layout));
    attn_add_into(target, other);
    attn_tensor_release(other);
    return ATTN_OK;
}

/* *sum = target + gradient, in memory of its own. */
static attn_status added(attn_tensor **sum, const attn_tensor *target, attn_tensor *gradient)
{
    attn_tensor *copy;
    ATTN_TRY(attn_tensor_copy(&copy, target));
    attn_status status = add_into(copy, gradient);
    if (status == ATTN_OK)
        *sum = copy;
    else
        attn_tensor_release(copy);
    return status;
}

/* target += gradient; takes gradient over as it is where target is still empty. */
static attn_status accumulate(attn_tensor **target, attn_tensor *gradient)
{
    attn_tensor *sum;
    if (!*target) {
        *target = attn_tensor_retain(gradient);
        return ATTN_OK;
    }
    if (owned_alone(*target))
        return add_into(*target, gradient);
    ATTN_TRY(added(&sum, *target, gradient)); /* somebody else reads the old one */
    attn_tensor_release(*target);
    *target = sum;
    return ATTN_OK;
}

static attn_status run_hooks(attn_variable *variable, attn_tensor **gradient)
{
    uint64_t id = 0;
    attn_hook *hook;
    while ((hook = attn_variable_hook_after(variable, id))) { /* it may remove itself, or others */
        attn_tensor *replacement = NULL;
        id = hook->id;
        attn_status status = hook->call(hook->context, *gradient, &replacement);
        attn_hook_release(hook);
        ATTN_TRY(status);
        if (replacement) {
            attn_tensor_release(*gradient);
            *gradient = replacement;
        }
    }
    return ATTN_OK;
}

/* The gradient of a variable is complete: hooks see it, and it is kept where it is wanted. */
static attn_status finish_variable(attn_variable *variable, attn_tensor **gradient)
{
    ATTN_TRY(run_hooks(variable, gradient));
    if (variable->node ? !variable->retains_grad : variable->since == ATTN_TURNED_OFF)
        return ATTN_OK;
    attn_tensor *sum = NULL, *grad = attn_variable_grad(variable);
    bool seen = grad && (grad->references > 2 || grad->storage->references > 1); /* by others, too */
    attn_status status = ATTN_OK;
    if (!grad && owned_alone(*gradient))
        sum = attn_tensor_retain(*gradient);
    else if (!grad) /* two leaves must not share one gradient */
        status = attn_tensor_copy(&sum, *gradient);
    else if (seen)
        status = added(&sum, grad, *gradient);
    else
        status = add_into(grad, *gradient);
    if (sum)
        attn_variable_set_grad(variable, sum);
    attn_tensor_release(grad);
    return status;
}

static attn_status check_saved(const attn_node *node)
{
    if (node->freed)
        return attn_fail(ATTN_BAD_STATE,
                         "backward a second time through %s: what it saved is freed; "
                         "call the first backward with retain_graph=True",
                         node->operation->name);
    for (int i = 0; i < node->saved_count; i++)
        if (node->saved[i] && node->saved[i]->storage->version != node->saved_version[i])
            return attn_fail(ATTN_BAD_STATE,
                             "a tensor that %s needs for its gradient was changed in place",
                             node->operation->name);
    return ATTN_OK;
}

typedef struct {
    node_heap heap;
    list leaves; /* met during the walk, finished when no more gradient can come; retained */
    list taken;  /* in turn a variable that a walk around this one had claimed, and that walk */
} walk;

/* A walk around this one is handing the variable's gradient on: what comes now is this one's. */
static attn_status take_over(attn_variable *variable, walk *w)
{
    ATTN_TRY(append(&w->taken, variable));
    attn_status status = append(&w->taken, (void *)variable->walk);
    if (status == ATTN_OK)
        variable->walk = w;
    else
        w->taken.count--;
    return status;
}

/* Walks of several threads may meet at a tensor, a parameter of a network that both use. The first
 * gathers there until it has handed on what it gathered; the others fail. A walk that a hook has
 * begun adds to what the one around it gathers, and takes over what that one has gathered whole. */
static attn_status claim(attn_variable *variable, walk *w)
{
    char text[160];
    uint64_t thread = 0;
    if (atomic_compare_exchange_strong(&variable->thread, &thread, me)) {
        variable->walk = w;
        return ATTN_OK;
    }
    if (thread == me)
        return variable->pending || variable->walk == w ? ATTN_OK : take_over(variable, w);
    if (is_lost(thread) && atomic_compare_exchange_strong(&variable->thread, &thread, me)) {
        variable->pending = NULL; /* not released: its thread may have been about to */
        variable->walk = w;
        return ATTN_OK;
    }
    return attn_fail(ATTN_BAD_STATE,
                     "backward: another thread is computing a gradient of the same tensor, of "
                     "shape %s; let one end first, or give each thread a copy of the network",
                     attn_shape_text(text, variable->ndim, variable->shape));
}

static bool holds(const walk *w, const attn_variable *variable)
{
    return variable && is_mine(variable) && variable->walk == w;
}

/* Lets others gather there again; what was gathered and not handed on is dropped. */
static void leave(attn_variable *variable, walk *w)
{
    if (!holds(w, variable))
        return;
    attn_tensor_release(variable->pending);
    variable->pending = NULL;
    void **taken = w->taken.items;
    for (int64_t i = 0; i < w->taken.count; i += 2) {
        if (taken[i] == variable) { /* back to the walk around this one */
            variable->walk = taken[i + 1];
            taken[i] = NULL;
            return;
        }
    }
    atomic_store(&variable->thread, 0);
}

/* Hands the gradient of one input on: into the variable, whose node joins the heap. A leaf gathers
 * in `pending` as well, so that its hooks see the whole of it at the end. */
static attn_status hand_on(walk *w, attn_variable *variable, attn_tensor *gradient)
{
    ATTN_TRY(claim(variable, w));
    bool first = !variable->pending;
    ATTN_TRY(accumulate(&variable->pending, gradient));
    if (!first)
        return ATTN_OK;
    if (!variable->node) {
        ATTN_TRY(append(&w->leaves, variable));
        attn_variable_retain(variable);
        return ATTN_OK;
    }
    /* A node with several outputs is queued once. */
    for (int i = 0; i < variable->node->output_count; i++) {
        attn_variable *sibling = variable->node->outputs[i];
        if (sibling != variable && holds(w, sibling) && sibling->pending)
            return ATTN_OK;
    }
    return heap_push(&w->heap, variable->node);
}

static attn_status differentiate(attn_node *node, attn_tensor *const *dy, attn_tensor **dx)
{
    attn_profile_event event = {.name = node->operation->name, .backward = true,
                                .begin = attn_profile_now()};
    attn_status status = node->operation->backward(node, dy, dx);
    if (event.begin) {
        for (int i = 0; i < node->output_count; i++)
            if (dy[i])
                attn_profile_shape(&event, dy[i]->ndim, dy[i]->shape);
        attn_profile_add(&event);
    }
    return status;
}

static attn_status visit(walk *w, attn_node *node, bool retain_graph)
{
    enum { FEW = 64 };
    attn_tensor *dy_few[FEW] = {0}, *dx_few[FEW] = {0};
    attn_tensor **dy = dy_few, **dx = dx_few;
    attn_status status = ATTN_OK;
    int outputs = node->output_count, inputs = node->input_count;
    if (outputs > FEW)
        dy = attn_object((size_t)outputs, sizeof *dy);
    if (inputs > FEW)
        dx = attn_object((size_t)inputs, sizeof *dx);
    if (!dy || !dx) {
        status = ATTN_NO_MEMORY;
        goto done;
    }
    for (int i = 0; i < outputs; i++) {
        attn_variable *variable = node->outputs[i];
        if (holds(w, variable)) {
            dy[i] = variable->pending;
            variable->pending = NULL;
            ATTN_GOTO(finish_variable(variable, &dy[i]));
        }
    }
    ATTN_GOTO(check_saved(node));
    ATTN_GOTO(differentiate(node, dy, dx));
    if (!retain_graph)
        attn_node_free_saved(node);
    for (int i = 0; i < inputs; i++) {
        attn_variable *variable = node->inputs[i];
        if (!variable || !dx[i])
            continue;
        ATTN_GOTO(hand_on(w, variable, dx[i]));
        attn_tensor_release(dx[i]); /* the variable owns it alone: the next one adds in place */
        dx[i] = NULL;
    }
done:
    for (int i = 0; i < outputs; i++)
        leave(node->outputs[i], w);
    for (int i = 0; status != ATTN_OK && i < inputs; i++)
        leave(node->inputs[i], w); /* they may not be in the heap yet, nor among the leaves */
    for (int i = 0; dy && i < outputs; i++)
        attn_tensor_release(dy[i]);
    for (int i = 0; dx && i < inputs; i++)
        attn_tensor_release(dx[i]);
    if (dy != dy_few)
        attn_object_free(dy);
    if (dx != dx_few)
        attn_object_free(dx);
    return status;
}

/* After a failure some variables still hold what they gathered; a later walk must not find it. */
static void leave_all(walk *w)
{
    while (w->heap.count > 0) {
        attn_node *node = heap_pop(&w->heap);
        for (int i = 0; i < node->output_count; i++)
            leave(node->outputs[i], w);
    }
}

static attn_status first_gradient(attn_tensor **dy, attn_tensor *y, attn_tensor *gradient)
{
    char wanted[160], got[160];
    if (gradient) {
        if (!attn_same_shape(y, gradient))
            return attn_fail(ATTN_BAD_VALUE, "backward: gradient has shape %s, the tensor has %s",
                             attn_shape_text(got, gradient->ndim, gradient->shape),
                             attn_shape_text(wanted, y->ndim, y->shape));
        return attn_detach(dy, gradient);
    }
    if (y->size != 1)
        return attn_fail(ATTN_BAD_VALUE,
                         "backward: a tensor of shape %s needs a gradient argument; only one of a "
                         "single element has the gradient 1 by itself",
                         attn_shape_text(wanted, y->ndim, y->shape));
    ATTN_TRY(attn_tensor_empty(dy, y->ndim, y->shape, ATTN_PLAIN));
    attn_data(*dy)[0] = 1.0f;
    return ATTN_OK;
}

attn_status attn_backward_walk(attn_tensor *y, attn_tensor *gradient, bool retain_graph)
{
    attn_variable *root = y->variable;
    if (!root)
        return attn_fail(ATTN_BAD_STATE, "backward: the tensor does not require a gradient and has "
                                         "no operation behind it");
    attn_tensor *dy = NULL;
    ATTN_TRY(first_gradient(&dy, y, gradient));
    walk w = {0};
    if (!me)
        me = atomic_fetch_add(&last_name, 1) + 1;
    attn_variable_retain(root); /* a hook may take it from y */
    attn_status status = hand_on(&w, root, dy);
    attn_tensor_release(dy);
    if (status != ATTN_OK)
        leave(root, &w);
    while (status == ATTN_OK && w.heap.count > 0) {
        if (attn_interrupted()) {
            status = attn_fail(ATTN_INTERRUPTED, "interrupted");
            break;
        }
        status = visit(&w, heap_pop(&w.heap), retain_graph);
    }
    leave_all(&w);
    for (int64_t i = 0; i < w.leaves.count; i++) {
        attn_variable *leaf = w.leaves.items[i];
        if (status == ATTN_OK) {
            attn_tensor *gathered = leaf->pending;
            leaf->pending = NULL;
            status = finish_variable(leaf, &gathered);
            attn_tensor_release(gathered);
        }
        leave(leaf, &w);
        attn_variable_release(leaf);
    }
    attn_object_free(w.heap.items);
    attn_object_free(w.leaves.items);
    attn_object_free(w.taken.items);
    attn_variable_release(root);
    return status;
}
