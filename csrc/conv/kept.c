#include "kept.h"

#include "../base/memory.h"

struct attn_conv_kept {
    attn_tensor *weight; /* PLAIN */
    _Atomic(float *) forms[ATTN_FORMS];
};

attn_status attn_conv_kept_new(attn_conv_kept **kept, attn_tensor *weight)
{
    attn_conv_kept *k = attn_object(1, sizeof *k);
    if (!k)
        return ATTN_NO_MEMORY;
    attn_status status = attn_tensor_as_plain(&k->weight, weight);
    if (status != ATTN_OK) {
        attn_object_free(k);
        return status;
    }
    *kept = k;
    return ATTN_OK;
}

void attn_conv_kept_free(attn_conv_kept *kept)
{
    attn_tensor_release(kept->weight);
    for (int i = 0; i < ATTN_FORMS; i++)
        attn_free(atomic_load(&kept->forms[i]));
    attn_object_free(kept);
}

attn_tensor *attn_conv_kept_weight(const attn_conv_kept *kept) { return kept->weight; }

attn_status attn_conv_kept_form(const float **form, attn_conv_kept *kept,
                                const attn_conv_plan *plan)
{
    *form = plan->form == ATTN_FORM_PLAIN ? attn_data(kept->weight)
                                          : atomic_load(&kept->forms[plan->form]);
    if (*form)
        return ATTN_OK;
    float *packed, *other = NULL;
    ATTN_TRY(attn_alloc((void **)&packed, (size_t)plan->form_size * sizeof(float)));
    plan->engine->pack(plan, packed, attn_data(kept->weight));
    if (!atomic_compare_exchange_strong(&kept->forms[plan->form], &other, packed)) {
        attn_free(packed); /* another thread was faster */
        packed = other;
    }
    *form = packed;
    return ATTN_OK;
}
