/* A fake of NVIDIA's management library: two cards, of which the second has fallen off the bus. */
#include <string.h>

typedef int ret;
enum { OK = 0, NOT_SUPPORTED = 3, LOST = 15 };

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct memory {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

ret nvmlInit_v2(void) { return OK; }
ret nvmlInitWithFlags(unsigned flags) { return flags == 0 ? OK : NOT_SUPPORTED; }
ret nvmlShutdown(void) { return OK; }
ret nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
ret nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(1ul + index);
    return index == 0 ? OK : LOST;
}
ret nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    strncpy(text, "GPU-8f6c1a2b-0000-1111-2222-333344445555", length);
    return OK;
}
ret nvmlDeviceGetName(void *device, char *text, unsigned length) {
    strncpy(text, "Fake RTX 3080", length);
    return OK;
}
ret nvmlDeviceGetMemoryInfo_v2(void *device, struct memory *memory) {
    memory->total = 10ull << 30;
    return OK;
}
ret nvmlDeviceGetPciInfo_v3(void *device, struct pci *pci) {
    strcpy(pci->bus_id, "00000000:C1:00.0");
    return OK;
}
