/* What Windows tells a process of its job object, in hexadecimal, as coresize records it.

   Without arguments: the answers of the job that this process is in. With "limited": the
   answers of a job that this program makes, limits and joins first. Also the layout of
   the structures, as the compiler's headers have it. */
#include <windows.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct { ULONG64 JobMemory; ULONG64 PeakJobMemoryUsed; } MEMORY_USAGE;

static void show(const char *name, const void *content, DWORD size) {
  printf("%s = \"", name);
  for (DWORD at = 0; at < size; at++) printf("%02x", ((const unsigned char *)content)[at]);
  printf("\"\n");
}

static void ask(const char *name, int number, DWORD size) {
  unsigned char content[512] = {0};
  if (QueryInformationJobObject(NULL, number, content, size, NULL))
    show(name, content, size);
  else
    printf("# %s: error %lu\n", name, GetLastError());
}

static void limit(void) {
  HANDLE job = CreateJobObjectA(NULL, NULL);
  JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
  limits.BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_JOB_MEMORY |
      JOB_OBJECT_LIMIT_PROCESS_MEMORY | JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
  limits.BasicLimitInformation.ActiveProcessLimit = 6;
  limits.ProcessMemoryLimit = 512u << 20;
  limits.JobMemoryLimit = 2048u << 20;
  JOBOBJECT_CPU_RATE_CONTROL_INFORMATION rate = {0};
  rate.ControlFlags = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP;
  rate.CpuRate = 5000;
  if (!SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits))
    printf("# limits: error %lu\n", GetLastError());
  if (!SetInformationJobObject(job, JobObjectCpuRateControlInformation, &rate, sizeof rate))
    printf("# rate: error %lu\n", GetLastError());
  if (!AssignProcessToJobObject(job, GetCurrentProcess()))
    printf("# assign: error %lu\n", GetLastError());
}

#define FIELD(type, field) printf("# %s.%s at %zu\n", #type, #field, offsetof(type, field))

int main(int count, char **words) {
  if (count > 1 && !strcmp(words[1], "limited")) limit();
  BOOL inside = FALSE;
  IsProcessInJob(GetCurrentProcess(), NULL, &inside);
  printf("# in a job: %d\n", inside);
  ask("job_accounting", JobObjectBasicAccountingInformation, sizeof(JOBOBJECT_BASIC_ACCOUNTING_INFORMATION));
  ask("job_limits", JobObjectExtendedLimitInformation, sizeof(JOBOBJECT_EXTENDED_LIMIT_INFORMATION));
  ask("job_cpu_rate", JobObjectCpuRateControlInformation, sizeof(JOBOBJECT_CPU_RATE_CONTROL_INFORMATION));
  ask("job_memory_usage", 28, sizeof(MEMORY_USAGE));
  MEMORYSTATUSEX status = {sizeof status};
  if (GlobalMemoryStatusEx(&status)) show("memory_status", &status, sizeof status);
  FIELD(JOBOBJECT_EXTENDED_LIMIT_INFORMATION, BasicLimitInformation.LimitFlags);
  FIELD(JOBOBJECT_EXTENDED_LIMIT_INFORMATION, BasicLimitInformation.ActiveProcessLimit);
  FIELD(JOBOBJECT_EXTENDED_LIMIT_INFORMATION, ProcessMemoryLimit);
  FIELD(JOBOBJECT_EXTENDED_LIMIT_INFORMATION, JobMemoryLimit);
  FIELD(JOBOBJECT_CPU_RATE_CONTROL_INFORMATION, CpuRate);
  FIELD(JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, ActiveProcesses);
  FIELD(MEMORYSTATUSEX, ullTotalPageFile);
  FIELD(MEMORYSTATUSEX, ullAvailPageFile);
  printf("# sizes %zu %zu %zu %zu\n", sizeof(JOBOBJECT_BASIC_ACCOUNTING_INFORMATION),
         sizeof(JOBOBJECT_EXTENDED_LIMIT_INFORMATION),
         sizeof(JOBOBJECT_CPU_RATE_CONTROL_INFORMATION), sizeof(MEMORYSTATUSEX));
  return 0;
}
