/*
 * How fast the kernel takes a cold sync: sends recorded netlink datagrams, as they are, and reads their answers.
 *
 *   kernel-limit TRACE      prints one JSON object; exits 1 when the kernel refuses any message
 *
 * TRACE (test/bench/record-main.ts writes it) is a sequence of records of little-endian numbers:
 *   u32 socket, u32 protocol, u32 length, bytes   one datagram; one socket is opened per number
 *   u32 0xffffffff, u32 family                    the generic netlink id that "IPVS" had when it was recorded
 *   u32 0xfffffffe                                from here on the clock runs
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAX_SOCKETS 16
#define RECORD_FAMILY 0xffffffffu
#define RECORD_START 0xfffffffeu
#ifndef SOL_NETLINK
#define SOL_NETLINK 270
#endif

static char answer[128 * 1024];
static uint16_t recorded_family, family;

static void die(const char *what) {
  fprintf(stderr, "kernel-limit: %s: %s\n", what, strerror(errno));
  exit(2);
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* The same options as native/libc.ts. */
static int open_socket(int protocol) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
  if (fd < 0) die("socket");
  int receive = 8 << 20, send = 1 << 20, on = 1;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof receive);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send, sizeof send);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  struct sockaddr_nl address = {.nl_family = AF_NETLINK};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) die("bind");
  return fd;
}

/* Asks the controller for the message type of "IPVS" in this kernel. */
static uint16_t resolve_ipvs(void) {
  int fd = open_socket(NETLINK_GENERIC);
  struct {
    struct nlmsghdr header;
    struct genlmsghdr generic;
    struct nlattr attribute;
    char name[8];
  } request = {
      .header = {.nlmsg_len = sizeof request, .nlmsg_type = GENL_ID_CTRL, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1},
      .generic = {.cmd = CTRL_CMD_GETFAMILY, .version = 2},
      .attribute = {.nla_len = NLA_HDRLEN + 5, .nla_type = CTRL_ATTR_FAMILY_NAME},
      .name = "IPVS",
  };
  if (send(fd, &request, sizeof request, 0) < 0) die("ask for IPVS");
  ssize_t length = recv(fd, answer, sizeof answer, 0);
  struct nlmsghdr *header = (struct nlmsghdr *)answer;
  if (length < (ssize_t)NLMSG_LENGTH(GENL_HDRLEN) || header->nlmsg_type == NLMSG_ERROR) die("no IPVS in this kernel");
  char *at = answer + NLMSG_LENGTH(GENL_HDRLEN), *end = answer + header->nlmsg_len;
  while (at + NLA_HDRLEN <= end) {
    struct nlattr *attribute = (struct nlattr *)at;
    if (attribute->nla_type == CTRL_ATTR_FAMILY_ID) {
      close(fd);
      return *(uint16_t *)(at + NLA_HDRLEN);
    }
    at += NLA_ALIGN(attribute->nla_len);
  }
  die("no id for IPVS");
  return 0;
}

/* Gives generic messages this kernel's id; returns how many messages there are and the last one's sequence number. */
static int prepare(char *datagram, uint32_t length, int protocol, uint32_t *last) {
  int count = 0;
  for (uint32_t at = 0; at + NLMSG_HDRLEN <= length; count++) {
    struct nlmsghdr *header = (struct nlmsghdr *)(datagram + at);
    if (protocol == NETLINK_GENERIC && header->nlmsg_type == recorded_family) header->nlmsg_type = family;
    *last = header->nlmsg_seq;
    at += NLMSG_ALIGN(header->nlmsg_len);
  }
  return count;
}

/* The beginning of a sync asks for what need not be there: the link, and tables of kube-proxy's nftables mode. */
static int is_absence(int error, uint16_t type) {
  return error == -ENODEV || (error == -ENOENT && type >> 8 == NFNL_SUBSYS_NFTABLES);
}

/* Reads until the answer to the last message; returns the number of refusals but those that say that nothing is there. */
static int read_answers(int fd, uint32_t last) {
  int refused = 0;
  for (;;) {
    ssize_t length = recv(fd, answer, sizeof answer, 0);
    if (length < 0) die("recv");
    for (ssize_t at = 0; at + NLMSG_HDRLEN <= length;) {
      struct nlmsghdr *header = (struct nlmsghdr *)(answer + at);
      at += NLMSG_ALIGN(header->nlmsg_len);
      int isEnd = header->nlmsg_type == NLMSG_DONE;
      if (header->nlmsg_type == NLMSG_ERROR) {
        isEnd = 1;
        struct nlmsgerr *answered = NLMSG_DATA(header);
        if (answered->error != 0 && !is_absence(answered->error, answered->msg.nlmsg_type)) refused++;
      }
      if (isEnd && header->nlmsg_seq == last) return refused;
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: kernel-limit TRACE\n"), 2;
  FILE *file = fopen(argv[1], "rb");
  struct stat status;
  if (file == NULL || fstat(fileno(file), &status) < 0) die(argv[1]);
  char *trace = malloc(status.st_size), *end = trace + status.st_size;
  if (trace == NULL || fread(trace, 1, status.st_size, file) != (size_t)status.st_size) die(argv[1]);
  family = resolve_ipvs();

  int sockets[MAX_SOCKETS] = {0}, refused = 0;
  long datagrams = 0, messages = 0, bytes = 0;
  double start = milliseconds(), per_socket[MAX_SOCKETS] = {0}, since = start;
  uint32_t current = 0;
  for (char *at = trace; at + 4 <= end;) {
    uint32_t *record = (uint32_t *)at;
    if (record[0] == RECORD_FAMILY) {
      recorded_family = record[1];
      at += 8;
    } else if (record[0] == RECORD_START) {
      datagrams = messages = bytes = refused = 0;
      memset(per_socket, 0, sizeof per_socket);
      start = since = milliseconds();
      at += 4;
    } else {
      uint32_t socket = record[0], last = 0;
      if (socket >= MAX_SOCKETS) return fprintf(stderr, "kernel-limit: socket %u\n", socket), 2;
      if (socket != current) { /* a look at the clock is a system call where there is no vDSO: one per run of datagrams */
        double now = milliseconds();
        per_socket[current] += now - since;
        since = now;
        current = socket;
      }
      if (sockets[socket] == 0) sockets[socket] = open_socket(record[1]);
      messages += prepare(at + 12, record[2], record[1], &last);
      if (send(sockets[socket], at + 12, record[2], 0) < 0) die("send");
      refused += read_answers(sockets[socket], last);
      datagrams++;
      bytes += record[2];
      at += 12 + record[2];
    }
  }
  double end_time = milliseconds();
  per_socket[current] += end_time - since;
  printf("{\"ms\":%.3f,\"datagrams\":%ld,\"messages\":%ld,\"bytes\":%ld,\"refused\":%d,\"perSocket\":[",
         end_time - start, datagrams, messages, bytes, refused);
  for (int i = 0; i < MAX_SOCKETS; i++) printf("%s%.3f", i ? "," : "", per_socket[i]);
  printf("]}\n");
  return refused != 0;
}
