// A library that answers as NVML does for one card: for the real nvidia-ml-py to be called with, where there is
// no driver. Layouts of structures are NVML's own (NVIDIA, "NVML API Reference"); what is not here is refused by
// nvidia-ml-py itself, as with a driver that lacks the function.
#include <cstring>

typedef int result;  // nvmlReturn_t
static int card, events, waits;
static void* const CARD = &card;

struct Memory { unsigned long long total, free, used; };
struct Utilization { unsigned gpu, memory; };
struct Margin { unsigned version; int degrees; };
struct Pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };
struct Process { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; };
struct Event { void* device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };
struct Field {
    unsigned id, scope;
    long long at, latency;
    unsigned kind;
    result returned;
    union { double real; unsigned number; unsigned long long wide; } value;
};

#define WITH_CARD(name, ...) extern "C" result name(void* device, ##__VA_ARGS__)
#define CHECK if (device != CARD) return 2

extern "C" result nvmlInitWithFlags(unsigned) { return 0; }
extern "C" result nvmlShutdown() { return 0; }
extern "C" const char* nvmlErrorString(result) { return "an error"; }
extern "C" result nvmlSystemGetDriverVersion(char* text, unsigned) { strcpy(text, "580.95.05"); return 0; }
extern "C" result nvmlDeviceGetCount_v2(unsigned* count) { *count = 1; return 0; }
extern "C" result nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
    *device = CARD;
    return index ? 2 : 0;
}
WITH_CARD(nvmlDeviceGetUUID, char* text, unsigned) { CHECK; strcpy(text, "GPU-1234"); return 0; }
WITH_CARD(nvmlDeviceGetName, char* text, unsigned) { CHECK; strcpy(text, "Card of C"); return 0; }
WITH_CARD(nvmlDeviceGetPciInfo_v3, Pci* pci) { CHECK; strcpy(pci->bus_id, "00000000:3B:00.0"); return 0; }
WITH_CARD(nvmlDeviceGetMemoryInfo, Memory* out) { CHECK; *out = {80, 70, 10}; return 0; }
WITH_CARD(nvmlDeviceGetUtilizationRates, Utilization* out) { CHECK; *out = {37, 12}; return 0; }
WITH_CARD(nvmlDeviceGetMigMode, unsigned* now, unsigned* later) { CHECK; *now = *later = 0; return 0; }
WITH_CARD(nvmlDeviceGetTemperature, unsigned sensor, unsigned* out) { CHECK; *out = 55 + sensor; return 0; }
WITH_CARD(nvmlDeviceGetMarginTemperature, Margin* out) {
    CHECK;
    out->degrees = -3;
    return out->version == 0x1000008 ? 0 : 25;
}
WITH_CARD(nvmlDeviceGetPowerUsage, unsigned* out) { CHECK; *out = 310500; return 0; }
WITH_CARD(nvmlDeviceGetEnforcedPowerLimit, unsigned*) { CHECK; return 3; }
WITH_CARD(nvmlDeviceGetTotalEnergyConsumption, unsigned long long* out) { CHECK; *out = 1ull << 40; return 0; }
WITH_CARD(nvmlDeviceGetClockInfo, unsigned kind, unsigned* out) { CHECK; *out = 1000 + kind; return 0; }
WITH_CARD(nvmlDeviceGetMaxClockInfo, unsigned kind, unsigned* out) { CHECK; *out = 2000 + kind; return 0; }
WITH_CARD(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long* out) { CHECK; *out = 0x49; return 0; }
WITH_CARD(nvmlDeviceGetTotalEccErrors, unsigned kind, unsigned counter, unsigned long long* out) {
    CHECK;
    *out = kind == 1 ? 4 : 9;
    return counter ? 2 : 0;
}
WITH_CARD(nvmlDeviceGetRemappedRows, unsigned* fixed, unsigned* lost, unsigned* pending, unsigned* failed) {
    CHECK;
    *fixed = *lost = *pending = 1;
    *failed = 0;
    return 0;
}
WITH_CARD(nvmlDeviceGetPcieThroughput, unsigned direction, unsigned* out) { CHECK; *out = direction ? 222 : 111; return 0; }
WITH_CARD(nvmlDeviceGetCurrPcieLinkGeneration, unsigned* out) { CHECK; *out = 4; return 0; }
WITH_CARD(nvmlDeviceGetMaxPcieLinkGeneration, unsigned* out) { CHECK; *out = 5; return 0; }
WITH_CARD(nvmlDeviceGetCurrPcieLinkWidth, unsigned* out) { CHECK; *out = 8; return 0; }
WITH_CARD(nvmlDeviceGetMaxPcieLinkWidth, unsigned* out) { CHECK; *out = 16; return 0; }
WITH_CARD(nvmlDeviceGetPcieReplayCounter, unsigned* out) { CHECK; *out = 3; return 0; }
WITH_CARD(nvmlDeviceGetFieldValues, int count, Field* fields) {
    CHECK;
    if (count != 1 || fields->id != 230) return 2;
    fields->kind = 1;
    fields->returned = 0;
    fields->value.number = 4;
    return 0;
}
WITH_CARD(nvmlDeviceGetComputeRunningProcesses_v3, unsigned* count, Process* out) {
    CHECK;
    if (!out) { *count = 2; return 7; }
    *count = 2;
    out[0] = {11, 5, ~0u, ~0u};
    out[1] = {12, ~0ull, ~0u, ~0u};
    return 0;
}
WITH_CARD(nvmlDeviceGetSupportedEventTypes, unsigned long long* out) { CHECK; *out = 0xB; return 0; }
extern "C" result nvmlEventSetCreate(void** set) { *set = &events; return 0; }
WITH_CARD(nvmlDeviceRegisterEvents, unsigned long long kinds, void* set) {
    CHECK;
    return kinds == 0xA && set == &events ? 0 : 3;
}
extern "C" result nvmlEventSetWait_v2(void* set, Event* out, unsigned) {
    if (set != &events) return 2;
    if (waits++) return 10;
    *out = {CARD, 8, 79, ~0u, ~0u};
    return 0;
}
extern "C" result nvmlEventSetFree(void* set) { return set == &events ? 0 : 2; }
