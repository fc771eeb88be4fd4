/* The backward walk: nodes in the reverse order of their creation, gradients gathered on the way. */
#include "../base/memory.h"
#include "../base/profile.h"
#include "../base/threads.h"
#include "../ops/ops.h"
#include "tape.h"

#include <string.h>

void attn_node_free_saved(attn_node *node); /* tape.c */

/* A heap of nodes still to be visited, the youngest on top. */
typedef struct {
    attn_node **items;
    int64_t count, capacity;
} node_heap;

static attn_status heap_push(node_heap *heap, attn_node *node)
{
    if (heap->count == heap->capacity) {
        int64_t capacity = heap->capacity ? 2 * heap->capacity : 64;
        attn_node **items = attn_object_grow(heap->items, (size_t)capacity * sizeof *items);
        if (!items)
            return ATTN_NO_MEMORY;
        heap->items = items;
        heap->capacity = capacity;
    }
    int64_t i = heap->count++;
    while (i > 0 && heap->items[(i - 1) / 2]->sequence < node->sequence) {
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
            heap->items[child + 1]->sequence > heap->items[child]->sequence)
            child++;
        if (heap->items[child]->sequence <= last->sequence)
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
    attn_tensor *gathered = variable ? variable->pending : NULL;
    return gathered && gathered->layout == layout && owned_alone(gathered) ? gathered : NULL;
}

/* target += gradient; takes gradient over as it is where target is still empty. */
static attn_status accumulate(attn_tensor **target, attn_tensor *gradient)
{
    if (!*target) {
        *target = attn_tensor_retain(gradient);
        return ATTN_OK;
    }
    attn_tensor *sum;
    if (owned_alone(*target)) {
        attn_tensor *other;
        ATTN_TRY(attn_tensor_as(&other, gradient, (*target)->layout));
        attn_add_into(*target, other);
        attn_tensor_release(other);
        return ATTN_OK;
    }
    ATTN_TRY(attn_tensor_copy(&sum, *target)); /* somebody else reads the old one */
    attn_tensor_release(*target);
    *target = sum;
    return accumulate(target, gradient);
}

static attn_status run_hooks(attn_variable *variable, attn_tensor **gradient)
{
    for (attn_hook *hook = variable->hooks; hook;) {
        attn_tensor *replacement = NULL;
        uint64_t id = hook->id;
        ATTN_TRY(hook->call(hook->context, *gradient, &replacement));
        if (replacement) {
            attn_tensor_release(*gradient);
            *gradient = replacement;
        }
        /* It may have removed itself or others; their numbers only grow along the list. */
        for (hook = variable->hooks; hook && hook->id <= id;)
            hook = hook->next;
    }
    return ATTN_OK;
}

/* The gradient of a variable is complete: hooks see it, and it is kept where it is wanted. */
static attn_status finish_variable(attn_variable *variable, attn_tensor **gradient)
{
    ATTN_TRY(run_hooks(variable, gradient));
    if (variable->node && !variable->retains_grad)
        return ATTN_OK;
    if (!variable->grad && !owned_alone(*gradient)) /* two leaves must not share one gradient */
        return attn_tensor_copy(&variable->grad, *gradient);
    return accumulate(&variable->grad, *gradient);
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

/* Hands the gradient of one input on: into the variable, whose node joins the heap. A leaf gathers
 * in `pending` as well, so that its hooks see the whole of it at the end. */
static attn_status hand_on(node_heap *heap, attn_variable *variable, attn_tensor *gradient)
{
    bool first = !variable->pending;
    ATTN_TRY(accumulate(&variable->pending, gradient));
    if (!first || !variable->node)
        return ATTN_OK;
    /* A node with several outputs is queued once. */
    for (int i = 0; i < variable->node->output_count; i++) {
        attn_variable *sibling = variable->node->outputs[i];
        if (sibling && sibling != variable && sibling->pending)
            return ATTN_OK;
    }
    return heap_push(heap, variable->node);
}

/* The leaves met during the walk, finished when no more gradient can come. */
typedef struct {
    attn_variable **items;
    int64_t count, capacity;
} leaf_list;

static attn_status leaf_push(leaf_list *leaves, attn_variable *leaf)
{
    if (leaves->count == leaves->capacity) {
        int64_t capacity = leaves->capacity ? 2 * leaves->capacity : 64;
        attn_variable **items = attn_object_grow(leaves->items, (size_t)capacity * sizeof *items);
        if (!items)
            return ATTN_NO_MEMORY;
        leaves->items = items;
        leaves->capacity = capacity;
    }
    leaves->items[leaves->count++] = attn_variable_retain(leaf);
    return ATTN_OK;
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

static void forget(attn_variable *variable)
{
    if (variable) {
        attn_tensor_release(variable->pending);
        variable->pending = NULL;
    }
}

static attn_status visit(node_heap *heap, leaf_list *leaves, attn_node *node, bool retain_graph)
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
        if (variable && variable->pending) {
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
        bool new_leaf = !variable->node && !variable->pending;
        ATTN_GOTO(hand_on(heap, variable, dx[i]));
        attn_tensor_release(dx[i]); /* the variable owns it alone: the next one adds in place */
        dx[i] = NULL;
        if (new_leaf)
            ATTN_GOTO(leaf_push(leaves, variable));
    }
done:
    if (status != ATTN_OK) { /* this node has left the heap, and its inputs may not be in it yet */
        for (int i = 0; i < outputs; i++)
            forget(node->outputs[i]);
        for (int i = 0; i < inputs; i++)
            forget(node->inputs[i]);
    }
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
static void forget_pending(node_heap *heap)
{
    while (heap->count > 0) {
        attn_node *node = heap_pop(heap);
        for (int i = 0; i < node->output_count; i++)
            forget(node->outputs[i]);
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
    node_heap heap = {0};
    leaf_list leaves = {0};
    attn_status status = ATTN_OK;
    attn_variable_retain(root); /* a hook may take it from y */
    if (!root->node) {
        status = finish_variable(root, &dy);
        attn_tensor_release(dy);
        attn_variable_release(root);
        return status;
    }
    status = hand_on(&heap, root, dy);
    attn_tensor_release(dy);
    if (status != ATTN_OK)
        forget(root);
    while (status == ATTN_OK && heap.count > 0) {
        if (attn_interrupted()) {
            status = attn_fail(ATTN_INTERRUPTED, "interrupted");
            break;
        }
        status = visit(&heap, &leaves, heap_pop(&heap), retain_graph);
    }
    forget_pending(&heap);
    for (int64_t i = 0; i < leaves.count; i++) {
        attn_variable *leaf = leaves.items[i];
        attn_tensor *gathered = leaf->pending;
        leaf->pending = NULL;
        if (status == ATTN_OK)
            status = finish_variable(leaf, &gathered);
        attn_tensor_release(gathered);
        attn_variable_release(leaf);
    }
    attn_object_free(heap.items);
    attn_object_free(leaves.items);
    attn_variable_release(root);
    return status;
}
