# SPDX-License-Identifier: GPL-3.0-or-later
"""ActiveSync's binary XML: a tree of elements to bytes and back. Pure, standard library only.

Sources: WBXML 1.3 (W3C NOTE-wbxml-19990624) for the bytes, Microsoft's MS-ASWBXML 2.1.2.1 for the code pages, which are
the names behind the tokens. Only what ActiveSync uses: no attributes, no string table, no processing instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

SWITCH_PAGE, END, STR_I, OPAQUE = 0x00, 0x01, 0x03, 0xC3
CONTENT, ATTRIBUTES, TOKEN = 0x40, 0x80, 0x3F
# WBXML 1.3, an unknown public identifier, UTF-8, no string table.
HEADER = bytes([0x03, 0x01, 0x6A, 0x00])
FIRST_TOKEN = 5
# Deeper than anything that ActiveSync has; a bound for what is read.
DEPTH = 64

# Code page to its name and the names of its tokens from 5 on; "-" is a token without a name.
_TABLES: dict[int, tuple[str, str]] = {
    0: (
        "AirSync",
        """
        Sync Responses Add Change Delete Fetch SyncKey ClientId ServerId Status Collection Class Version
        CollectionId GetChanges MoreAvailable WindowSize Commands Options FilterType Truncation RTFTruncation
        Conflict Collections ApplicationData DeletesAsMoves NotifyGUID Supported SoftDelete MIMESupport
        MIMETruncation Wait Limit Partial ConversationMode MaxItems HeartbeatInterval
        """,
    ),
    1: (
        "Contacts",
        """
        Anniversary AssistantName AssistantPhoneNumber Birthday Body BodySize BodyTruncated Business2PhoneNumber
        BusinessAddressCity BusinessAddressCountry BusinessAddressPostalCode BusinessAddressState
        BusinessAddressStreet BusinessFaxNumber BusinessPhoneNumber CarPhoneNumber Categories Category Children
        Child CompanyName Department Email1Address Email2Address Email3Address FileAs FirstName Home2PhoneNumber
        HomeAddressCity HomeAddressCountry HomeAddressPostalCode HomeAddressState HomeAddressStreet
        HomeFaxNumber HomePhoneNumber JobTitle LastName MiddleName MobilePhoneNumber OfficeLocation
        OtherAddressCity OtherAddressCountry OtherAddressPostalCode OtherAddressState OtherAddressStreet
        PagerNumber RadioPhoneNumber Spouse Suffix Title WebPage YomiCompanyName YomiFirstName YomiLastName
        CompressedRTF Picture Alias WeightedRank
        """,
    ),
    2: (
        "Email",
        """
        Attachment Attachments AttName AttSize AttOId AttMethod AttRemoved Body BodySize BodyTruncated
        DateReceived DisplayName DisplayTo Importance MessageClass Subject Read To Cc From ReplyTo AllDayEvent
        Categories Category DtStamp EndTime InstanceType BusyStatus Location MeetingRequest Organizer
        RecurrenceId Reminder ResponseRequested Recurrences Recurrence Type Until Occurrences Interval DayOfWeek
        DayOfMonth WeekOfMonth MonthOfYear StartTime Sensitivity TimeZone GlobalObjId ThreadTopic MIMEData
        MIMETruncated MIMESize InternetCPID Flag Status ContentClass FlagType CompleteTime
        DisallowNewTimeProposal
        """,
    ),
    4: (
        "Calendar",
        """
        Timezone AllDayEvent Attendees Attendee Email Name Body BodyTruncated BusyStatus Categories Category -
        DtStamp EndTime Exception Exceptions Deleted ExceptionStartTime Location MeetingStatus OrganizerEmail
        OrganizerName Recurrence Type Until Occurrences Interval DayOfWeek DayOfMonth WeekOfMonth MonthOfYear
        Reminder Sensitivity Subject StartTime UID AttendeeStatus AttendeeType - - - - - - - -
        DisallowNewTimeProposal ResponseRequested AppointmentReplyTime ResponseType CalendarType IsLeapMonth
        FirstDayOfWeek OnlineMeetingConfLink OnlineMeetingExternalLink ClientUid
        """,
    ),
    6: (
        "GetItemEstimate",
        """
        GetItemEstimate Version Collections Collection Class CollectionId DateTime Estimate Response Status
        """,
    ),
    7: (
        "FolderHierarchy",
        """
        Folders Folder DisplayName ServerId ParentId Type Response Status ContentClass Changes Add Delete Update
        SyncKey FolderCreate FolderDelete FolderUpdate FolderSync Count Version
        """,
    ),
    8: (
        "MeetingResponse",
        """
        CalendarId CollectionId MeetingResponse RequestId Request Result Status UserResponse Version InstanceId
        - ProposedStartTime ProposedEndTime SendResponse
        """,
    ),
    9: (
        "Tasks",
        """
        Body BodySize BodyTruncated Categories Category Complete DateCompleted DueDate UTCDueDate Importance
        Recurrence Type Start Until Occurrences Interval DayOfMonth DayOfWeek WeekOfMonth MonthOfYear Regenerate
        DeadOccur ReminderSet ReminderTime Sensitivity StartDate UTCStartDate Subject CompressedRTF OrdinalDate
        SubOrdinalDate CalendarType IsLeapMonth FirstDayOfWeek
        """,
    ),
    10: (
        "ResolveRecipients",
        """
        ResolveRecipients Response Status Type Recipient DisplayName EmailAddress Certificates Certificate
        MiniCertificate Options To CertificateRetrieval RecipientCount MaxCertificates MaxAmbiguousRecipients
        CertificateCount Availability StartTime EndTime MergedFreeBusy Picture MaxSize Data MaxPictures
        """,
    ),
    12: (
        "Contacts2",
        """
        CustomerId GovernmentId IMAddress IMAddress2 IMAddress3 ManagerName CompanyMainPhone AccountName
        NickName MMS
        """,
    ),
    13: (
        "Ping",
        """
        Ping AutdState Status HeartbeatInterval Folders Folder Id Class MaxFolders
        """,
    ),
    14: (
        "Provision",
        """
        Provision Policies Policy PolicyType PolicyKey Data Status RemoteWipe EASProvisionDoc
        DevicePasswordEnabled AlphanumericDevicePasswordRequired DeviceEncryptionEnabled PasswordRecoveryEnabled
        DocumentBrowseEnabled AttachmentsEnabled MinDevicePasswordLength MaxInactivityTimeDeviceLock
        MaxDevicePasswordFailedAttempts MaxAttachmentSize AllowSimpleDevicePassword DevicePasswordExpiration
        DevicePasswordHistory AllowStorageCard AllowCamera RequireDeviceEncryption AllowUnsignedApplications
        AllowUnsignedInstallationPackages MinDevicePasswordComplexCharacters AllowWiFi AllowTextMessaging
        AllowPOPIMAPEmail AllowBluetooth AllowIrDA RequireManualSyncWhenRoaming AllowDesktopSync
        MaxCalendarAgeFilter AllowHTMLEmail MaxEmailAgeFilter MaxEmailBodyTruncationSize
        MaxEmailHTMLBodyTruncationSize RequireSignedSMIMEMessages RequireEncryptedSMIMEMessages
        RequireSignedSMIMEAlgorithm RequireEncryptionSMIMEAlgorithm AllowSMIMEEncryptionAlgorithmNegotiation
        AllowSMIMESoftCerts AllowBrowser AllowConsumerEmail AllowRemoteDesktop AllowInternetSharing
        UnapprovedInROMApplicationList ApplicationName ApprovedApplicationList Hash AccountOnlyRemoteWipe
        """,
    ),
    15: (
        "Search",
        """
        Search - Store Name Query Options Range Status Response Result Properties Total EqualTo Value And Or
        FreeText - DeepTraversal LongId RebuildResults LessThan GreaterThan Schema Supported UserName Password
        ConversationId Picture MaxSize MaxPictures
        """,
    ),
    16: (
        "GAL",
        """
        DisplayName Phone Office Title Company Alias FirstName LastName HomePhone MobilePhone EmailAddress
        Picture Status Data
        """,
    ),
    17: (
        "AirSyncBase",
        """
        BodyPreference Type TruncationSize AllOrNone - Body Data EstimatedDataSize Truncated Attachments
        Attachment DisplayName FileReference Method ContentId ContentLocation IsInline NativeBodyType
        ContentType Preview BodyPartPreference BodyPart Status Add Delete ClientId Content Location Annotation
        Street City State Country PostalCode Latitude Longitude Accuracy Altitude AltitudeAccuracy LocationUri
        InstanceId
        """,
    ),
    18: (
        "Settings",
        """
        Settings Status Get Set Oof OofState StartTime EndTime OofMessage AppliesToInternal
        AppliesToExternalKnown AppliesToExternalUnknown Enabled ReplyMessage BodyType DevicePassword Password
        DeviceInformation Model IMEI FriendlyName OS OSLanguage PhoneNumber UserInformation EmailAddresses
        SmtpAddress UserAgent EnableOutboundSMS MobileOperator PrimarySmtpAddress Accounts Account AccountId
        AccountName UserDisplayName SendDisabled - RightsManagementInformation
        """,
    ),
    20: (
        "ItemOperations",
        """
        ItemOperations Fetch Store Options Range Total Properties Data Status Response Version Schema Part
        EmptyFolderContents DeleteSubFolders UserName Password Move DstFldId ConversationId MoveAlways
        """,
    ),
    21: (
        "ComposeMail",
        """
        SendMail SmartForward SmartReply SaveInSentItems ReplaceMime - Source FolderId ItemId LongId InstanceId
        MIME ClientId Status AccountId - Forwardees Forwardee ForwardeeName ForwardeeEmail
        """,
    ),
    22: (
        "Email2",
        """
        UmCallerID UmUserNotes UmAttDuration UmAttOrder ConversationId ConversationIndex LastVerbExecuted
        LastVerbExecutionTime ReceivedAsBcc Sender CalendarType IsLeapMonth AccountId FirstDayOfWeek
        MeetingMessageType - IsDraft Bcc Send
        """,
    ),
}
NAMES: dict[tuple[int, int], str] = {
    (page, token): f"{name}:{tag}"
    for page, (name, tags) in _TABLES.items()
    for token, tag in enumerate(tags.split(), FIRST_TOKEN)
    if tag != "-"
}
TOKENS: dict[str, tuple[int, int]] = {name: where for where, name in NAMES.items()}


class WbxmlError(ValueError):
    """Bytes that are no ActiveSync document, or a name that none can hold."""


@dataclass
class Element:
    """An element: `name` with its page (`AirSync:Sync`), what is in it: elements, text, or bytes (opaque data)."""

    name: str
    content: list[Element | str | bytes] = field(default_factory=list)

    def every(self, name: str) -> Iterator[Element]:
        """Elements of this name at any depth, in the order of the document."""
        for item in self.content:
            if isinstance(item, Element):
                if item.name == name:
                    yield item
                yield from item.every(name)

    def first(self, name: str) -> Element | None:
        """The first element of this name at any depth."""
        return next(self.every(name), None)

    def child(self, name: str) -> Element | None:
        """The first element of this name directly in this one."""
        return next((item for item in self.content if isinstance(item, Element) and item.name == name), None)

    @property
    def children(self) -> list[Element]:
        return [item for item in self.content if isinstance(item, Element)]

    @property
    def text(self) -> str:
        """All text directly in it; opaque data as UTF-8."""
        parts = (item for item in self.content if not isinstance(item, Element))
        return "".join(item if isinstance(item, str) else item.decode("utf-8", "replace") for item in parts)

    def value(self, name: str) -> str:
        """Text of the first element of this name, empty when there is none."""
        found = self.first(name)
        return found.text if found else ""

    def __str__(self) -> str:
        inner = "".join(
            str(item) if isinstance(item, Element | str) else f"[{len(item)} bytes]" for item in self.content
        )
        return f"<{self.name}>{inner}</{self.name}>" if inner else f"<{self.name}/>"


def element(name: str, *content: Element | str | bytes | int) -> Element:
    """An element, short to write: numbers become text.

    >>> print(element("FolderHierarchy:FolderSync", element("FolderHierarchy:SyncKey", 0)))
    <FolderHierarchy:FolderSync><FolderHierarchy:SyncKey>0</FolderHierarchy:SyncKey></FolderHierarchy:FolderSync>
    """
    return Element(name, [str(item) if isinstance(item, int) else item for item in content])


def _number(value: int) -> bytes:
    """A multi-byte integer (WBXML 5.1): seven bits a byte, the highest bit says that more follow."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(value & 0x7F | 0x80)
    return bytes(reversed(parts))


def encode(root: Element) -> bytes:
    """A document's bytes. Raises WbxmlError for a name that no code page has and text with a NUL."""
    out = bytearray(HEADER)
    page = 0

    def write(node: Element) -> None:
        nonlocal page
        try:
            wanted, token = TOKENS[node.name]
        except KeyError as error:
            raise WbxmlError(f"{node.name} is in no code page") from error
        if wanted != page:
            out.extend((SWITCH_PAGE, wanted))
            page = wanted
        out.append(token | CONTENT if node.content else token)
        if not node.content:
            return
        for item in node.content:
            if isinstance(item, Element):
                write(item)
            elif isinstance(item, bytes):
                out.append(OPAQUE)
                out.extend(_number(len(item)) + item)
            else:
                if "\0" in item:
                    raise WbxmlError(f"{node.name}: text with a NUL")
                out.append(STR_I)
                out.extend(item.encode() + b"\0")
        out.append(END)

    write(root)
    return bytes(out)


def _read_number(data: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for _ in range(5):
        byte = data[offset]
        offset += 1
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            return value, offset
    raise WbxmlError("a number that does not end")


def decode(data: bytes) -> Element:
    """The tree in a document's bytes. Raises WbxmlError for what is none.

    A token without a name keeps its numbers (`22:0x3f`): a newer server's answer is still read.
    """
    try:
        return _decode(data)
    except (IndexError, UnicodeDecodeError) as error:
        raise WbxmlError("the document ends early or holds text that is not UTF-8") from error


def _decode(data: bytes) -> Element:
    if data[:1] != HEADER[:1]:
        raise WbxmlError("not WBXML 1.3")
    offset = 1
    for _ in range(2):
        offset = _read_number(data, offset)[1]
    table, offset = _read_number(data, offset)
    offset += table
    page = 0
    open_elements: list[Element] = []
    while True:
        token = data[offset]
        offset += 1
        if token == SWITCH_PAGE:
            page = data[offset]
            offset += 1
        elif token == END:
            closed = open_elements.pop()
            if not open_elements:
                return closed
        elif token == STR_I:
            end = data.find(b"\0", offset)
            if end < 0:
                raise WbxmlError("text without an end")
            open_elements[-1].content.append(data[offset:end].decode())
            offset = end + 1
        elif token == OPAQUE:
            length, offset = _read_number(data, offset)
            if offset + length > len(data):
                raise WbxmlError("opaque data without an end")
            open_elements[-1].content.append(data[offset : offset + length])
            offset += length
        elif token & ATTRIBUTES or token & TOKEN < FIRST_TOKEN:
            raise WbxmlError(f"token {token:#04x}, which ActiveSync does not use")
        else:
            tag = token & TOKEN
            node = Element(NAMES.get((page, tag), f"{page}:{tag:#04x}"))
            if open_elements:
                open_elements[-1].content.append(node)
            if token & CONTENT:
                if len(open_elements) >= DEPTH:
                    raise WbxmlError("elements too deep in each other")
                open_elements.append(node)
            elif not open_elements:
                return node
