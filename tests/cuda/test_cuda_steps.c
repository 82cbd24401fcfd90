/* 50 steps on the emulated CUDA backend beside the CPU's in bf16, weights and adapter joined or
 * composed; whatever is computed again, the same bits. */
#include "kernels/base/alloc.h"
#include "tests/cuda/layout.h"
#include "tests/test.h"

/* What is computed again changes bits at any step or at none; emulation takes long. */
enum { STEPS = 50, STEPS_TO_SAME = 8 };

struct outcome {
    double loss[STEPS];
    float *adapter; /* after STEPS_TO_SAME */
    int64_t elements, bytes, redone;
};

static void train(struct outcome *o, const char *device, const char *model, const char *recompute,
                  int64_t memory, int64_t steps)
{
    char limit[64];
    const char *const keys[OPEN_KEYS] = {"train.max_steps=50", "train.learning_rate=1.0e-3",
                                         recompute, limit};
    int64_t redone[GR_STAGE_COUNT];
    struct engine_rig e;

    if (memory == 0)
        snprintf(limit, sizeof limit, "device.memory=auto");
    else
        snprintf(limit, sizeof limit, "device.memory=%" PRId64, memory);
    open_model(&e, device, model, keys);
    engine_rig_prepare(&e, 1);
    o->elements = e.trial[0].adapter->elements;
    o->bytes = e.engine.model.weights.bytes +
               gr_joined_weights_bytes(&e.engine.model.joined, e.engine.model.dtype) +
               e.engine.state.used + e.engine.step.used;
    gr_pass_count_redone(redone, e.engine.pass);
    o->redone = 0;
    for (int i = 0; i < GR_STAGE_COUNT; i++)
        o->redone += redone[i];
    o->adapter = GR_NEW_ARRAY(float, o->elements);
    for (int64_t step = 1; step <= steps; step++) {
        struct gr_update update;

        engine_rig_step(&e, &update, step);
        o->loss[step - 1] = update.loss;
        if (step == STEPS_TO_SAME)
            ASSERT_OK(gr_engine_get_adapter(&e.engine, o->adapter, 0));
    }
    engine_rig_close(&e);
}

static void assert_near(const char *what, const struct outcome *found,
                        const struct outcome *expected)
{
    double sum = 0, most = 0;

    for (int i = 0; i < STEPS; i++) {
        double apart = fabs(found->loss[i] - expected->loss[i]) / expected->loss[i];

        sum += apart;
        most = fmax(most, apart);
    }
    printf("%s: losses apart: mean %.1e, most %.1e\n", what, sum / STEPS, most);
    ASSERT_MSG(sum / STEPS < 2e-3 && most < 1e-2, "%s: mean %g, most %g", what, sum / STEPS, most);
    ASSERT(found->loss[STEPS - 1] < 0.95 * found->loss[0]);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    ASSERT_INT(a->elements, b->elements);
    ASSERT(memcmp(a->adapter, b->adapter, (size_t)a->elements * sizeof *a->adapter) == 0);
    ASSERT(memcmp(a->loss, b->loss, STEPS_TO_SAME * sizeof *a->loss) == 0);
}

/* Nothing, everything, and something between is computed again: the same bits. */
static void check_layout(const char *model, const struct outcome *cpu, bool joined)
{
    struct outcome none, all, middle;
    char *what = gr_format("%s, %s", model, joined ? "joined" : "composed");

    choose_layout(joined);
    train(&none, "cuda", model, "device.recompute=none", 0, STEPS);
    train(&all, "cuda", model, "device.recompute=all", 0, STEPS_TO_SAME);
    train(&middle, "cuda", model, "device.recompute=auto", (none.bytes + all.bytes) / 2,
          STEPS_TO_SAME);
    ASSERT_MSG(none.redone == 0 && middle.redone > 0 && middle.redone < all.redone,
               "%s: %" PRId64 " of %" PRId64 " stages again", what, middle.redone, all.redone);
    assert_near(what, &none, cpu);
    assert_same(&all, &none);
    assert_same(&middle, &none);
    gr_free(none.adapter);
    gr_free(all.adapter);
    gr_free(middle.adapter);
    gr_free(what);
}

static void check_training(const char *model)
{
    struct outcome cpu;

    train(&cpu, "cpu", model, "device.recompute=none", 0, STEPS);
    check_layout(model, &cpu, true);
    check_layout(model, &cpu, false);
    gr_free(cpu.adapter);
}

TEST(layouts_llama_trains_as_on_the_cpu)
{
    check_training("llama");
}

TEST(layouts_mistral_trains_as_on_the_cpu)
{
    check_training("mistral");
}

TEST(layouts_qwen2_trains_as_on_the_cpu)
{
    check_training("qwen2");
}

TEST(layouts_qwen3_trains_as_on_the_cpu)
{
    check_training("qwen3");
}
