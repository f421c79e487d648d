/*
 * seccomp-exec FILTER PROGRAM [ARGUMENT...]: loads a filter, an array of struct sock_filter as test/kernel/harness/
 * seccomp.ts writes it, and becomes the program. What the filter refuses, the kernel logs (SECCOMP_FILTER_FLAG_LOG).
 * Needs no_new_privs, as a container runtime sets it, or CAP_SYS_ADMIN.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
  static struct sock_filter code[4096];
  if (argc < 3) return fprintf(stderr, "usage: seccomp-exec FILTER PROGRAM [ARGUMENT...]\n"), 126;
  FILE *file = fopen(argv[1], "rb");
  if (file == NULL) return perror(argv[1]), 126;
  struct sock_fprog program = {.len = fread(code, sizeof *code, 4096, file), .filter = code};
  fclose(file);
  if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program) != 0)
    return perror("seccomp"), 126;
  execvp(argv[2], argv + 2);
  return perror(argv[2]), 127;
}
