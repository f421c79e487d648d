/** Generic netlink: struct genlmsghdr (u8 command, u8 version, u16 reserved) and the controller that names families. */
import { AttributeReader } from './attribute-reader.js';
import { type MessageWriter } from './attribute-writer.js';
import { type NetlinkConnection } from './connection.js';
import { NetlinkProtocolError } from './errors.js';
import { type NetlinkMessage } from './message.js';

export const GENERIC_HEADER_LENGTH = 4;

// include/uapi/linux/genetlink.h
const GENL_ID_CTRL = 0x10;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_VERSION = 2;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;

export function writeGenericHeader(writer: MessageWriter, command: number, version: number): void {
  const start = writer.reserve(GENERIC_HEADER_LENGTH);
  writer.buffer[start] = command;
  writer.buffer[start + 1] = version;
  writer.buffer[start + 2] = writer.buffer[start + 3] = 0;
}

/** The command of a generic netlink message. Throws NetlinkProtocolError when the header is not there. */
function genericCommand(message: NetlinkMessage): number {
  if (message.end - message.start < GENERIC_HEADER_LENGTH) {
    throw new NetlinkProtocolError('truncated generic netlink header');
  }
  return message.buffer[message.start]!;
}

/** Points `reader` at the attributes of a generic netlink message. */
export function genericAttributes(message: NetlinkMessage, reader: AttributeReader): AttributeReader {
  genericCommand(message);
  return reader.reset(message.buffer, message.start + GENERIC_HEADER_LENGTH, message.end);
}

/** The message type of a generic netlink family; throws NetlinkError `ENOENT` when no such family is registered. */
export function resolveFamily(connection: NetlinkConnection, name: string): number {
  let id = 0;
  const write = (writer: MessageWriter): void => {
    writeGenericHeader(writer, CTRL_CMD_GETFAMILY, CTRL_VERSION);
    writer.string(CTRL_ATTR_FAMILY_NAME, name);
  };
  connection.request({ operation: `find generic netlink family ${name}`, type: GENL_ID_CTRL, write }, (message) => {
    const reader = genericAttributes(message, new AttributeReader());
    while (reader.next()) if (reader.type === CTRL_ATTR_FAMILY_ID) id = reader.u16();
  });
  if (id === 0) throw new NetlinkProtocolError(`the kernel gave no id for generic netlink family ${name}`);
  return id;
}
