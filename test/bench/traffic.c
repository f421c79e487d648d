/*
 * New TCP connections, one after another, and how long each waits for its first answer.
 *
 *   traffic serve PORT                       answers one byte to whoever connects, for ever
 *   traffic ask SECONDS PORT ADDRESS...      asks the addresses in turn; prints one JSON object
 *
 * Connections end by a reset, so that none stays behind in TIME_WAIT and no source port runs out.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define MOST 2000000

static void die(const char *what) {
  fprintf(stderr, "traffic: %s: %s\n", what, strerror(errno));
  exit(2);
}

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void serve(int port) {
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
  int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(fd, 1024) < 0) die("listen");
  puts("serving");
  fflush(stdout);
  signal(SIGPIPE, SIG_IGN);
  for (;;) {
    int client = accept(fd, NULL, NULL);
    if (client < 0) continue;
    if (write(client, "!", 1) == 1) {
      char end;
      if (read(client, &end, 1) > 0) continue;
    }
    close(client);
  }
}

static int order(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static int ask(struct sockaddr_in *there) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), isAnswered = 0;
  struct timeval patience = {.tv_sec = 5};
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  char answer;
  if (connect(fd, (struct sockaddr *)there, sizeof *there) == 0) isAnswered = read(fd, &answer, 1) == 1;
  close(fd);
  return isAnswered;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "serve") == 0) serve(atoi(argv[2]));
  if (argc < 5 || strcmp(argv[1], "ask") != 0) return fprintf(stderr, "usage: traffic serve PORT | ask SECONDS PORT ADDRESS...\n"), 2;
  double seconds = atof(argv[2]);
  int count = argc - 4;
  struct sockaddr_in *targets = calloc(count, sizeof *targets);
  for (int i = 0; i < count; i++) {
    targets[i].sin_family = AF_INET;
    targets[i].sin_port = htons(atoi(argv[3]));
    if (inet_pton(AF_INET, argv[i + 4], &targets[i].sin_addr) != 1) die(argv[i + 4]);
  }
  float *times = malloc(MOST * sizeof *times);
  long answered = 0, failed = 0;
  double start = microseconds(), now = start;
  for (long i = 0; now - start < seconds * 1e6 && answered < MOST; i++) {
    double before = now;
    int isAnswered = ask(&targets[i % count]);
    now = microseconds();
    if (isAnswered) times[answered++] = now - before;
    else failed++;
  }
  qsort(times, answered, sizeof *times, order);
  printf("{\"perSecond\":%.1f,\"p50Us\":%.1f,\"p99Us\":%.1f,\"answered\":%ld,\"failed\":%ld}\n", answered / ((now - start) / 1e6),
         answered ? times[answered / 2] : 0, answered ? times[answered * 99 / 100] : 0, answered, failed);
  return 0;
}
