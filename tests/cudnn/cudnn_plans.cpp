/* cuDNN makes plans of our graphs of attention, for a GPU that is described to it.  Says nothing of
 * their results.
 *   cudnn_plans JSON_FILE padded|packed      a line per plan; exit code 1 if one is missing */
#include "kernels/cuda/cudnn_attention.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct shape {
    const char *name;
    int64_t heads, kv_heads, head_dim, rows;
};

static const struct shape shapes[] = {
    {"Llama-3-8B", 32, 8, 128, 2048},  {"Llama-3-8B", 32, 8, 128, 4096},
    {"Llama-3-8B", 32, 8, 128, 8192},  {"Llama-3.2-1B", 32, 8, 64, 4096},
    {"Llama-2-7B", 32, 32, 128, 4096}, {"Qwen2.5-7B", 28, 4, 128, 4096},
};

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The plan becomes text, and a plan again. */
static bool is_same_again(struct gr_cudnn_graph *g)
{
    static char text[1 << 20];
    int64_t length = gr_cudnn_graph_text(g, NULL, 0), workspace_bytes = -1;
    double start;
    void *again;

    if (length <= 0 || length > (int64_t)sizeof text ||
        gr_cudnn_graph_text(g, text, length) != length)
        return false;
    start = now();
    if (!gr_cudnn_plan_load(&again, &workspace_bytes, g->cudnn, text, length)) {
        snprintf(g->message, sizeof g->message, "the text of %lld bytes makes no plan",
                 (long long)length);
        return false;
    }
    printf("(text of %lld bytes, loaded in %.4f s) ", (long long)length, now() - start);
    g->cudnn->cudnnBackendDestroyDescriptor(again);
    return workspace_bytes == g->workspace_bytes;
}

static bool plan(const struct gr_cudnn *cudnn, const struct shape *m, bool is_padded,
                 bool is_backward)
{
    /* q, k and v beside each other in one buffer, with the columns of three adapters; o with one */
    int64_t qkv = (m->heads + 2 * m->kv_heads) * m->head_dim + 48, o = m->heads * m->head_dim + 16;
    int64_t dqkv = is_backward ? qkv + 32 : 0, d_o = is_backward ? o - 16 : 0;
    struct gr_cudnn_attention a = {is_backward, 16,        m->rows, m->heads, m->kv_heads,
                                   m->head_dim, is_padded, qkv,     qkv,      qkv,
                                   o,           dqkv,      dqkv,    dqkv,     d_o};
    static struct gr_cudnn_graph g;
    double start = now();
    bool made;

    gr_cudnn_graph_init(&g, cudnn);
    gr_cudnn_attention_graph(&g, &a);
    made = g.status == GR_CUDNN_STATUS_SUCCESS && gr_cudnn_graph_plan(&g) && is_same_again(&g);
    printf("%-12s %4lld rows %-8s %2d operations  ", m->name, (long long)m->rows,
           is_backward ? "backward" : "forward", g.operations);
    if (made)
        printf("engine %lld, workspace %lld, %.1f s\n", (long long)g.engine,
               (long long)g.workspace_bytes, now() - start);
    else
        printf("FAIL %s\n", g.message);
    gr_cudnn_graph_release(&g);
    return made;
}

int main(int count, char **argument)
{
    static char json[4096];
    struct gr_cudnn cudnn;
    char why[256];
    FILE *file = count == 3 ? fopen(argument[1], "re") : NULL;
    size_t length = file != NULL ? fread(json, 1, sizeof json - 1, file) : 0;
    bool made = true;

    if (length == 0)
        return 2;
    fclose(file);
    json[strcspn(json, "\n")] = '\0';
    if (!gr_cudnn_open(&cudnn, why, sizeof why)) {
        printf("skipped: no cuDNN: %s\n", why);
        return 77;
    }
    printf("cuDNN %zu, %s\n", cudnn.cudnnGetVersion(), argument[1]);
    if (!gr_cudnn_describe_gpu(&cudnn, json)) {
        printf("FAIL cuDNN does not take the description\n");
        return 1;
    }
    for (const struct shape &shape : shapes)
        for (int is_backward = 0; is_backward < 2; is_backward++)
            made = plan(&cudnn, &shape, strcmp(argument[2], "padded") == 0, is_backward) && made;
    return made ? 0 : 1;
}
