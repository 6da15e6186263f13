/* In the place of a driver's library: two GPUs, for machines that have none.
   The calls and what they return are those of NVIDIA's NVML API Reference. */
#include <stdio.h>

static const char *const uuids[] = {
    "GPU-5a1e60fc-77aa-11ef-9f0c-0242ac110002",
    "GPU-c3d1b0e2-77aa-11ef-9f0c-0242ac110002",
};
enum { DONE = 0, NOT_FOUND = 6 };

int nvmlInitWithFlags(unsigned flags) { return flags == 0 ? DONE : 2; }

int nvmlShutdown(void) { return DONE; }

int nvmlDeviceGetCount_v2(unsigned *count)
{
    *count = 2;
    return DONE;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    if (index > 1)
        return NOT_FOUND;
    *device = (void *)&uuids[index];
    return DONE;
}

int nvmlDeviceGetName(void *device, char *name, unsigned length)
{
    (void)device;
    snprintf(name, length, "NVIDIA A100-SXM4-80GB");
    return DONE;
}

int nvmlDeviceGetUUID(void *device, char *uuid, unsigned length)
{
    snprintf(uuid, length, "%s", *(const char *const *)device);
    return DONE;
}
