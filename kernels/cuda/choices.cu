/* What this device chose, as text, and taking another's choices over.  See device.h.
 *
 *     attention cudnn 91900
 *     product KEY ALGORITHM        both in hexadecimal, as gemm_plan.h and cuBLASLt have them
 *
 * Products stand in the order of their keys: the same choices are the same text, whatever came up
 * first.  Called by the trainer through the table of ops. */
#include "kernels/cuda/cudnn_plans.h"
#include "kernels/cuda/gemm_plan.h"

#include <stdlib.h>
#include <string.h>

static const char attention_word[] = "attention ", product_word[] = "product ";

enum {
    KEY_DIGITS = 2 * sizeof(struct gr_cuda_key),
    ALGORITHM_DIGITS = 2 * sizeof(cublasLtMatmulAlgo_t)
};

/* ---- as text ---- */

static void add_hex(struct gr_buffer *text, const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *next = (const unsigned char *)bytes;

    for (size_t i = 0; i < count; i++) {
        const char pair[2] = {digits[next[i] >> 4], digits[next[i] & 15]};

        gr_buffer_add(text, pair, sizeof pair);
    }
}

static int compare(const void *a, const void *b)
{
    const struct gr_cuda_plan *const *left = (const struct gr_cuda_plan *const *)a;
    const struct gr_cuda_plan *const *right = (const struct gr_cuda_plan *const *)b;

    return memcmp(&(*left)->key, &(*right)->key, sizeof(*left)->key);
}

void gr_cuda_get_choices(struct gr_device *dev, struct gr_buffer *text)
{
    const struct gr_cuda_plans *plans = gr_cuda_of(dev)->plans;
    const struct gr_cuda_plan *sorted[GR_CUDA_PLANS];
    char attention[GR_CUDA_ATTENTION_WORDS];

    for (int i = 0; i < plans->count; i++)
        sorted[i] = &plans->plan[i];
    qsort(sorted, (size_t)plans->count, sizeof sorted[0], compare);
    gr_cuda_attention_name(dev, attention);
    gr_buffer_add_format(text, "%s%s\n", attention_word, attention);
    for (int i = 0; i < plans->count; i++) {
        gr_buffer_add_text(text, product_word);
        add_hex(text, &sorted[i]->key, sizeof sorted[i]->key);
        gr_buffer_add_text(text, " ");
        add_hex(text, &sorted[i]->algorithm, sizeof sorted[i]->algorithm);
        gr_buffer_add_text(text, "\n");
    }
}

/* ---- from text ---- */

static gr_status refuse_text()
{
    return gr_fail(GR_ERR_DATA, "choices", NULL, "these are no choices of a GPU");
}

static int digit_of(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

static bool read_hex(void *bytes, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++) {
        const int high = digit_of(text[2 * i]), low = digit_of(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return false;
        ((unsigned char *)bytes)[i] = (unsigned char)(high << 4 | low);
    }
    return true;
}

/* The algorithm for that product, in the place of one that is there. */
static gr_status set_product(struct gr_cuda *c, const struct gr_cuda_key *key,
                             const cublasLtMatmulAlgo_t *algorithm)
{
    struct gr_cuda_plan *plan = gr_cuda_plan_find(c, key);
    const bool is_new = plan == NULL;

    if (is_new && gr_cuda_plan_begin(&plan, c, key) != CUBLAS_STATUS_SUCCESS)
        return refuse_text();
    if (!gr_cuda_algorithm_is_good(c, plan, algorithm)) {
        if (is_new)
            gr_cuda_plan_forget(plan);
        return gr_fail(GR_ERR_DEVICE, "cuBLASLt", "use GPUs and libraries of one kind",
                       "this GPU cannot multiply by the algorithm that was chosen for the run "
                       "(found a product of %lld x %lld x %lld)",
                       (long long)key->m, (long long)key->n, (long long)key->k);
    }
    plan->algorithm = *algorithm;
    if (is_new)
        gr_cuda_plan_keep(c);
    return GR_OK;
}

static gr_status set_line(struct gr_device *dev, const char *line, size_t length)
{
    const size_t word = strlen(product_word);
    struct gr_cuda_key key;
    cublasLtMatmulAlgo_t algorithm;
    char attention[GR_CUDA_ATTENTION_WORDS] = "";

    if (strncmp(line, attention_word, strlen(attention_word)) == 0) {
        line += strlen(attention_word);
        length -= strlen(attention_word);
        if (length >= sizeof attention)
            return refuse_text();
        memcpy(attention, line, length);
        return gr_cuda_set_attention(dev, attention);
    }
    if (strncmp(line, product_word, word) != 0 ||
        length != word + KEY_DIGITS + 1 + ALGORITHM_DIGITS ||
        !read_hex(&key, sizeof key, line + word) || line[word + KEY_DIGITS] != ' ' ||
        !read_hex(&algorithm, sizeof algorithm, line + word + KEY_DIGITS + 1))
        return refuse_text();
    return set_product(gr_cuda_of(dev), &key, &algorithm);
}

gr_status gr_cuda_set_choices(struct gr_device *dev, const char *text)
{
    while (*text != '\0') {
        const char *end = strchr(text, '\n');
        gr_status status = end == NULL ? refuse_text() : set_line(dev, text, (size_t)(end - text));

        if (status != GR_OK)
            return status;
        text = end + 1;
    }
    return GR_OK;
}
