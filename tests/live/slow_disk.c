/* Preloaded into a program: each write to a file of a folder takes 50 ms, as on a slow
   network disk; files in memory stay fast. The folder is the variable SLOW_FOLDER. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t write(int file, const void *content, size_t size) {
  static ssize_t (*next)(int, const void *, size_t);
  char link[64], path[4096];
  const char *folder = getenv("SLOW_FOLDER");
  if (!next) next = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (folder && length > 0) {
    path[length] = 0;
    if (!strncmp(path, folder, strlen(folder))) usleep(50000);
  }
  return next(file, content, size);
}
