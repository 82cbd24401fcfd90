/* The choice between cuDNN's attention and ours, and the plans.  See cudnn_plans.h. */
#include "kernels/cuda/cudnn_plans.h"
#include "kernels/cuda/kept.h"

#include <stdio.h>
#include <string.h>

extern "C" {
#include "kernels/base/env.h"
}

struct gr_cuda_cudnn {
    enum gr_attention_kind chosen;
    bool is_decided, is_used, is_open;
    bool takes_few; /* rows too: somebody wants it, not the record */
    char why[256];  /* it is not there */
    char why_no_plan[512];
    struct gr_cudnn library;
    int count;
    struct gr_cudnn_plan plan[GR_CUDNN_PLANS];
};

/* ---- whose attention ---- */

static struct gr_cuda_cudnn *cudnn_of(struct gr_cuda *c)
{
    if (c->cudnn == NULL)
        c->cudnn = GR_NEW(struct gr_cuda_cudnn);
    return c->cudnn;
}

static bool open_library(struct gr_cuda *c)
{
    struct gr_cuda_cudnn *s = cudnn_of(c);

    if (!s->is_open && s->why[0] == '\0')
        s->is_open = gr_cudnn_open(&s->library, s->why, sizeof s->why) &&
                     gr_cudnn_use_gpu(&s->library, c->stream, s->why, sizeof s->why);
    return s->is_open;
}

static struct gr_cuda_kept place_of_record()
{
    static const char key[] = "whose";

    return {"attention", 0, "gratten1", key, sizeof key};
}

/* What the record says first; a record of another cuDNN says nothing. */
static bool is_recorded(struct gr_device *dev)
{
    const struct gr_cuda_kept place = place_of_record();
    struct gr_cuda *c = gr_cuda_of(dev);
    int64_t bytes, version = 0;
    char *text = NULL;
    bool is_cudnn;

    if (dev->cache_folder != NULL)
        text = (char *)gr_cuda_kept_load(&bytes, c, &place, dev->cache_folder);
    is_cudnn = text != NULL && sscanf(text, "uses cudnn %ld\n", &version) == 1 && open_library(c) &&
               (size_t)version == c->cudnn->library.cudnnGetVersion();
    gr_free(text);
    return is_cudnn;
}

static bool is_used(struct gr_device *dev)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    struct gr_cuda_cudnn *s = cudnn_of(c);
    const char *wanted = s->chosen == GR_ATTENTION_RECORDED ? gr_env(GR_ENV_GRAFT_ATTENTION) : NULL;

    if (s->is_decided)
        return s->is_used;
    s->is_decided = true;
    s->takes_few = s->chosen == GR_ATTENTION_CUDNN || wanted != NULL;
    if (wanted != NULL && strcmp(wanted, "own") != 0 && strcmp(wanted, "cudnn") != 0)
        gr_device_fail(dev, GR_ERR_USAGE, "GRAFT_ATTENTION",
                       "unknown attention (found %s, expected own or cudnn)", wanted);
    if (s->takes_few) {
        s->is_used = (wanted == NULL || strcmp(wanted, "cudnn") == 0) && open_library(c);
        if (wanted != NULL && strcmp(wanted, "cudnn") == 0 && !s->is_used)
            gr_device_fail(dev, GR_ERR_DEVICE, "GRAFT_ATTENTION", "there is no cuDNN (found %s)",
                           s->why);
    } else {
        s->is_used = s->chosen == GR_ATTENTION_RECORDED && is_recorded(dev);
    }
    return s->is_used;
}

gr_status gr_cuda_choose_attention(struct gr_device *dev, enum gr_attention_kind kind)
{
    struct gr_cuda_cudnn *s = cudnn_of(gr_cuda_of(dev));

    s->chosen = kind;
    s->is_decided = false;
    if (kind == GR_ATTENTION_CUDNN && !open_library(gr_cuda_of(dev)))
        return gr_fail(GR_ERR_DEVICE, "cuDNN",
                       "install cuDNN 9.18.1 or newer, or add its folder to LD_LIBRARY_PATH",
                       "cuDNN cannot be used (found %s)", s->why);
    return GR_OK;
}

gr_status gr_cuda_record_attention(struct gr_device *dev, enum gr_attention_kind kind,
                                   const char *figures)
{
    const struct gr_cuda_kept place = place_of_record();
    struct gr_cuda *c = gr_cuda_of(dev);
    gr_status status = GR_OK;
    int64_t bytes, length;
    char *text, *found = NULL;

    if (dev->cache_folder == NULL)
        return gr_fail(GR_ERR_USAGE, "data.cache_dir", "set XDG_CACHE_HOME or HOME",
                       "there is no cache folder to record in");
    text = gr_format("uses %s %zu\n%s", kind == GR_ATTENTION_CUDNN ? "cudnn" : "own",
                     open_library(c) ? c->cudnn->library.cudnnGetVersion() : 0, figures);
    length = (int64_t)strlen(text);
    gr_cuda_kept_save(c, &place, dev->cache_folder, text, length, true);
    found = (char *)gr_cuda_kept_load(&bytes, c, &place, dev->cache_folder);
    if (found == NULL || strcmp(found, text) != 0)
        status = gr_fail(GR_ERR_DATA, dev->cache_folder, "make it a folder that can be written",
                         "whose attention this machine uses cannot be recorded there");
    gr_free(found);
    gr_free(text);
    return status;
}

void gr_cuda_attention_name(struct gr_device *dev, char words[GR_CUDA_ATTENTION_WORDS])
{
    const struct gr_cuda_cudnn *s = cudnn_of(gr_cuda_of(dev));

    if (is_used(dev))
        snprintf(words, GR_CUDA_ATTENTION_WORDS, "cudnn %zu%s", s->library.cudnnGetVersion(),
                 s->takes_few ? " all" : "");
    else
        snprintf(words, GR_CUDA_ATTENTION_WORDS, "own");
}

/* Takes over what another device computes with, if this one can. */
static gr_status use_cudnn(struct gr_device *dev, long version, bool takes_few)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    struct gr_cuda_cudnn *s = cudnn_of(c);
    static const char place[] = "cuDNN", hint[] = "install the same cuDNN everywhere, or run "
                                                  "`graft doctor --device cuda` again";

    if (!open_library(c))
        return gr_fail(GR_ERR_DEVICE, place, hint,
                       "the run computes attention with cuDNN %ld, which cannot be used here "
                       "(found %s)",
                       version, s->why);
    if ((long)s->library.cudnnGetVersion() != version)
        return gr_fail(GR_ERR_DEVICE, place, hint,
                       "the run computes attention with another cuDNN (found %zu, expected %ld)",
                       s->library.cudnnGetVersion(), version);
    s->is_decided = s->is_used = true;
    s->takes_few = takes_few;
    return GR_OK;
}

gr_status gr_cuda_set_attention(struct gr_device *dev, const char *words)
{
    struct gr_cuda_cudnn *s = cudnn_of(gr_cuda_of(dev));
    const char *wanted = gr_env(GR_ENV_GRAFT_ATTENTION);
    const bool is_own = strcmp(words, "own") == 0;
    long version = 0;
    int end = 0;

    if (!is_own && (sscanf(words, "cudnn %ld%n", &version, &end) != 1 ||
                    (words[end] != '\0' && strcmp(words + end, " all") != 0)))
        return gr_fail(GR_ERR_DATA, "choices", NULL, "unknown attention (found %s)", words);
    if (s->chosen == GR_ATTENTION_RECORDED && wanted != NULL &&
        strcmp(wanted, is_own ? "own" : "cudnn") != 0)
        return gr_fail(GR_ERR_USAGE, "GRAFT_ATTENTION", "set it alike on all ranks, or on none",
                       "the run computes another attention (found %s, expected %s)", wanted,
                       is_own ? "own" : "cudnn");
    if (s->chosen == GR_ATTENTION_OWN && !is_own)
        return gr_fail(GR_ERR_USAGE, "device.deterministic", "set it alike on all ranks",
                       "the run computes attention with cuDNN, which this rank must not");
    if (!is_own)
        return use_cudnn(dev, version, words[end] != '\0');
    s->is_decided = true;
    s->is_used = s->takes_few = false;
    return GR_OK;
}

/* ---- plans ---- */

/* Rows are as the documents of any n up to them: few sizes, so that few plans serve all. */
static int64_t rows_of(int64_t n)
{
    int64_t rows = GR_CUDNN_RECORDED_LEAST;

    while (rows < n)
        rows += rows < 32768 ? rows : 32768;
    return rows;
}

static struct gr_cudnn_attention key_of(const struct gr_cuda *c, const struct gr_attention *a,
                                        bool is_backward, int64_t documents)
{
    struct gr_cudnn_attention key = {};

    key.is_backward = is_backward;
    key.documents = 1;
    while (key.documents < documents)
        key.documents *= 4;
    key.rows = rows_of(a->q.dim[0]);
    key.heads = a->q.dim[1];
    key.kv_heads = a->k.dim[1];
    key.head_dim = a->q.dim[2];
    key.lse_is_padded = strncmp(c->isa, "sm_8", 4) == 0;
    key.q_stride = a->q.stride;
    key.k_stride = a->k.stride;
    key.v_stride = a->v.stride;
    key.o_stride = a->o.stride;
    if (is_backward) {
        key.dq_stride = a->dq.stride;
        key.dk_stride = a->dk.stride;
        key.dv_stride = a->dv.stride;
        key.d_o_stride = a->d_o.stride;
    }
    return key;
}

/* Places in it are counted in 32 bits, and a row is moved in pieces of 16 bytes. */
static bool is_reachable(gr_tensor t)
{
    return t.ndim == 3 && t.stride * t.dim[0] <= INT32_MAX && t.stride % 8 == 0 &&
           (uintptr_t)t.data % 16 == 0;
}

static bool is_fit(const struct gr_cuda_cudnn *s, const struct gr_attention *a, bool is_backward)
{
    const gr_tensor all[] = {a->q, a->k, a->v, a->o, a->dq, a->dk, a->dv, a->d_o};
    const int64_t n = a->q.dim[0];

    for (int64_t i = 0; i < (is_backward ? 8 : 4); i++) {
        if (!is_reachable(all[i]))
            return false;
    }
    return a->q.dtype == GR_BF16 && (a->window == 0 || a->window >= n) &&
           a->q.dim[2] <= GR_CUDNN_HEAD_DIM_MOST && a->q.dim[2] % 8 == 0 &&
           a->lse.stride == a->lse.dim[1] && n * a->q.dim[1] * a->q.dim[2] <= INT32_MAX &&
           (s->takes_few || n >= GR_CUDNN_RECORDED_LEAST);
}

/* What is kept of a plan: how many tensors are bound, their ids, and then the text. */
static bool take_kept(struct gr_cuda_cudnn *s, struct gr_cudnn_plan *p, const char *kept,
                      int64_t bytes)
{
    int64_t before = (int64_t)sizeof p->ids;

    if (kept == NULL || bytes < before)
        return false;
    memcpy(&p->ids, kept, sizeof p->ids);
    if (p->ids < 0 || p->ids > GR_CUDNN_BOUND ||
        bytes <= before + p->ids * (int64_t)sizeof p->id[0])
        return false;
    memcpy(p->id, kept + before, (size_t)p->ids * sizeof p->id[0]);
    before += p->ids * (int64_t)sizeof p->id[0];
    return gr_cudnn_plan_load(&p->plan, &p->workspace_bytes, &s->library, kept + before,
                              bytes - before);
}

/* The plan as it is kept, for the caller to free; NULL: cuDNN makes none. */
static char *make_plan(int64_t *bytes, struct gr_cuda_cudnn *s, const struct gr_cudnn_plan *p)
{
    struct gr_cudnn_graph graph;
    char *kept = NULL;

    gr_cudnn_graph_init(&graph, &s->library);
    gr_cudnn_attention_graph(&graph, &p->key);
    if (gr_cudnn_graph_plan(&graph)) {
        const int64_t ids = (int64_t)sizeof(int64_t) * graph.bounds;
        const int64_t length = gr_cudnn_graph_text(&graph, NULL, 0);

        kept = (char *)gr_alloc((int64_t)sizeof graph.bounds + ids + length + 1, 1);
        memcpy(kept, &graph.bounds, sizeof graph.bounds);
        memcpy(kept + sizeof graph.bounds, graph.bound, (size_t)ids);
        *bytes = (int64_t)sizeof graph.bounds + ids +
                 gr_cudnn_graph_text(&graph, kept + sizeof graph.bounds + ids, length);
    }
    snprintf(s->why_no_plan, sizeof s->why_no_plan, "%s", graph.message);
    gr_cudnn_graph_release(&graph);
    return kept;
}

/* On compute capability 8 the backward takes dq of every document in f32, each as long as the
 * longest: in an 8B model with 4,096 tokens 0.25 GiB for 4 documents, 4 for 64. */
static void drop_large(struct gr_cuda_cudnn *s, struct gr_cudnn_plan *p)
{
    const struct gr_cudnn_attention *k = &p->key;
    const int64_t dq = k->rows * k->heads * k->head_dim * (int64_t)sizeof(float);

    if (p->plan == NULL || p->workspace_bytes <= GR_CUDNN_WORKSPACE_MOST * dq)
        return;
    snprintf(s->why_no_plan, sizeof s->why_no_plan, "its plan takes %.1f GiB",
             (double)p->workspace_bytes / (1 << 30));
    s->library.cudnnBackendDestroyDescriptor(p->plan);
    p->plan = NULL;
}

/* Fills in the plan of its key: from the cache, or made, and then taken from its text as every
 * later run will. */
static void find_plan(struct gr_device *dev, struct gr_cudnn_plan *p)
{
    struct gr_cuda *c = gr_cuda_of(dev);
    struct gr_cuda_cudnn *s = c->cudnn;
    const struct gr_cuda_kept place = {"cudnn", s->library.cudnnGetVersion(), "grcudnn1", &p->key,
                                       sizeof p->key};
    const char *folder = dev->cache_folder;
    char *kept = NULL;
    int64_t bytes = 0;

    if (folder != NULL)
        kept = (char *)gr_cuda_kept_load(&bytes, c, &place, folder);
    if (!take_kept(s, p, kept, bytes)) {
        gr_free(kept);
        kept = make_plan(&bytes, s, p);
        if (take_kept(s, p, kept, bytes) && folder != NULL)
            gr_cuda_kept_save(c, &place, folder, kept, bytes, true);
    }
    gr_free(kept);
    drop_large(s, p);
}

const struct gr_cudnn_plan *gr_cuda_cudnn_plan(struct gr_device *dev, const struct gr_attention *a,
                                               bool is_backward, int64_t documents)
{
    struct gr_cuda_cudnn *s;
    struct gr_cudnn_attention key;
    struct gr_cudnn_plan *p = NULL;

    if (!is_used(dev) || documents > GR_CUDNN_DOCUMENTS_MOST)
        return NULL;
    s = gr_cuda_of(dev)->cudnn;
    if (!is_fit(s, a, is_backward))
        return NULL;
    key = key_of(gr_cuda_of(dev), a, is_backward, documents);
    for (int i = 0; i < s->count && p == NULL; i++) {
        if (memcmp(&s->plan[i].key, &key, sizeof key) == 0)
            p = &s->plan[i];
    }
    if (p == NULL && s->count < GR_CUDNN_PLANS) {
        p = &s->plan[s->count++];
        p->key = key;
        find_plan(dev, p);
    }
    return p == NULL || p->plan == NULL ? NULL : p;
}

bool gr_cuda_attention_is_cudnn(struct gr_device *dev, const struct gr_attention *a, char *why,
                                int64_t why_size)
{
    const int64_t documents = a->docs.dim[0];
    const struct gr_cuda_cudnn *s = cudnn_of(gr_cuda_of(dev));

    if (gr_cuda_cudnn_plan(dev, a, false, documents) != NULL &&
        gr_cuda_cudnn_plan(dev, a, true, documents) != NULL)
        return true;
    if (!s->is_used)
        snprintf(why, (size_t)why_size, "%s", s->why[0] != '\0' ? s->why : "it is not chosen");
    else if (documents > GR_CUDNN_DOCUMENTS_MOST || !is_fit(s, a, true))
        snprintf(why, (size_t)why_size, "it is not asked for such a shape");
    else
        snprintf(why, (size_t)why_size, "it makes no plan that serves: %s", s->why_no_plan);
    return false;
}

const struct gr_cudnn *gr_cuda_cudnn(struct gr_device *dev)
{
    return &gr_cuda_of(dev)->cudnn->library;
}

void gr_cuda_cudnn_close(struct gr_cuda *c)
{
    struct gr_cuda_cudnn *s = c->cudnn;

    if (s == NULL)
        return;
    for (int i = 0; i < s->count; i++) {
        if (s->plan[i].plan != NULL)
            s->library.cudnnBackendDestroyDescriptor(s->plan[i].plan);
    }
    if (s->is_open)
        gr_cudnn_close(&s->library);
    gr_free(s);
    c->cudnn = NULL;
}
