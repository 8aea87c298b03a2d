"""Answers that are no captions: a model that declines, and one that says that there is nothing to say.

A refusal speaks for itself ("I'm sorry, but I can't…", "As an AI…"); a caption in which somebody is sorry, or a sign
that says "Sorry, we're closed", is none. So a pattern takes the whole turn of phrase, from the start of the text on.
"""

from __future__ import annotations

import re

_UNABLE = (
    r"(?:can(?:no|')t|can not|could(?: not|n't)|(?: am|'m| was|'re| are) (?:not able|unable)|won't|will not|"
    r"(?: am|'m|'re| are) not (?:comfortable|going|allowed|permitted)|(?:must|have to) (?:decline|refuse)|"
    r"(?:do not|don't) (?:have|see|feel|think i|know|assist|provide|describe)|"
    r"(?:did not|didn't) (?:receive|find|see|get))"
)
_ACTS = (
    r"(?:help|assist|describe|provide|comply|identify|process|fulfil|fulfill|generate|create|caption|do that|do this|"
    r"determine|access|analy[sz]e|continue|discuss|engage|recogni[sz]e|answer|produce|write|offer|respond|complete|"
    r"interpret|discern|support|satisfy|proceed|accommodate|comment|summari[sz]e)"
)
_LESS = r"(?:see|view|open|display|give|make out|make|say|tell|watch|read|perform|meet|show|load|find|detect)"
"""What people in a clip may be unable to do as well: a refusal says it of pictures, requests and answers."""
_THINGS = (
    r"(?:(?: \w+){0,4}? (?:image|video|content|clip|frame|picture|request|caption|description|footage|media|file|"
    r"visual|data|input|sequence|prompt|task|response|question)s?\b|[.!]*$)"
)
_SORRY = (
    r"(?:(?:(?:i'm|i am|we're|we are),? )?(?:(?:so|very|really|terribly) )?sorry|"
    r"(?:(?:i|we|my|our) )?(?:sincerely )?apologi[sz]es?|my apologies|apologies|unfortunately|regrettably|"
    r"i(?:'m| am) afraid(?: that)?)"
)
_BUT = rf"{_SORRY}[,.;:!—–-]*\s*(?:for (?:the|any) \w+[,.]? )?(?:(?:but|however),? )?"
_GIVEN = (
    r"(?:provided|attached|uploaded|supplied|included|given|received|available|shared|found|"
    r"to (?:describe|caption|process))"
)
_MEDIA = r"(?:image|video|picture|frame|clip|file|media|visual)s?"
_REFUSALS = [
    # I'm sorry, but I can't help with that. Unfortunately, I am unable to …
    rf"{_BUT}(?:i|we)\b.{{0,20}}?{_UNABLE}\b",
    rf"{_BUT}(?:i|we)(?:'m| am|'re| are) (?:unable|not able)\b",
    rf"{_BUT}(?:this|that|the|your) (?:request|content|prompt|task|{_MEDIA})\b",
    rf"{_BUT}(?:there (?:is|are|was|were) )?no {_MEDIA}\b.{{0,30}}\b{_GIVEN}",
    rf"{_BUT}(?:something went wrong|an error)\b",
    rf"{_SORRY}[.!]*$",
    r"\W*(?:refused|declined|blocked|censored|redacted)\W*$",
    # I cannot describe this. I don't see any picture.
    rf"(?:i|we) {_UNABLE} (?:{_ACTS}\b|{_LESS}{_THINGS})",
    rf"(?:i|we) (?:can(?:no|')t|can not|won't|will not) (?:to )?(?:{_ACTS}\b|{_LESS}{_THINGS})",
    r"(?:i|we)(?:'m| am|'re| are|'ve| have) (?:unable to|not able to|not allowed to|not permitted to|not comfortable|"
    r"programmed|designed to|only able|been (?:asked|trained|designed|programmed))\b",
    r"(?:i|we) (?:must|have to|need to|will have to) (?:respectfully )?(?:decline|refuse)\b",
    r"(?:i|we) (?:do not|don't|did not|didn't|cannot|can't) (?:see|have|receive|find|get|detect) "
    rf"(?:(?:any|an?|the) {_MEDIA}|access|enough|the (?:ability|capability))\b",
    r"(?:i|we) (?:don't|do not) feel comfortable\b",
    rf"i (?:would )?(?:need|require) to see\b.{{0,30}}\b{_MEDIA}",
    rf"without\b.{{0,40}}, (?:i|we)\b.{{0,12}}?{_UNABLE}\b",
    r"(?:my|our) (?:\w+ )?(?:guidelines|policy|policies|rules|programming) (?:do not|don't|does not|doesn't|prevents?|"
    r"prohibits?|forbids?)\b.{0,20}\b(?:me|us|this)\b",
    r"the (?:model|assistant|ai) (?:declined|refused|was unable|is unable) to "
    r"(?:answer|respond|describe|caption|comply)\b",
    r"i (?:would )?(?:need|require) (?:more|additional|the|an?) (?:context|information|details|images?|video|frames)\b",
    # As an AI language model, …
    r"as an? (?:(?:text|vision|language)-based )?(?:ai|artificial intelligence)"
    r"(?: (?:language |vision |text-based |visual )?(?:model|assistant|system|chatbot))?"
    r"\s*(?:,|i\b|$|developed|created|designed|trained)",
    r"as an? (?:(?:large|text|vision|multimodal)[ -]?(?:based )?)?language model\b",
    r"i(?:'m| am) (?:just |only )?an? (?:ai\b|(?:large )?language model|text-based|virtual assistant)",
    # Unable to process the video.
    rf"(?:unable|not able|cannot|can't|can not|could not|failed|impossible) (?:to )?(?:{_ACTS}|{_LESS}){_THINGS}",
    r"(?:unable|not able|cannot|can't) (?:to )?(?:help|assist|comply|determine what|identify what|tell what)\b",
    r"(?:it is|it's|it was) (?:not possible|impossible|difficult|hard) to (?:determine|describe|identify|discern|tell|"
    r"provide|generate|say|make out) (?:what|the|an?|any|this|exactly)\b",
    rf"(?:captioning|describing|processing|analy[sz]ing) (?:of )?(?:this|the) {_MEDIA} (?:is|was) (?:not |im)possible",
    # The request was blocked.
    r"(?:(?:this|the|your) )?(?:request|prompt|content|response)s? (?:was|were|is|are|has been|have been) "
    r"(?:blocked|flagged|declined|rejected|refused|filtered|not (?:allowed|permitted|supported))\b",
    r"(?:(?:this|the|your) )?(?:request|prompt|content|response) (?:blocked|declined|rejected|filtered)\b",
    rf"(?:this|the|your) (?:request|prompt|content|response|{_MEDIA})"
    r"(?: (?:may|might|would|could|appears? to|seems? to))? (?:violate|contains? (?:material|content) that violate|"
    r"goes? against (?:the|my|our) (?:guideline|polic|rule|term))",
    rf"(?:this|the|your) (?:request|prompt|content|{_MEDIA}) (?:cannot|could not|can't|can not) be "
    r"(?:processed|described|captioned|fulfilled|completed|analy[sz]ed|loaded|displayed|opened|"
    r"determined|discerned)\b",
    r"this (?:violates|would violate|goes against) (?:the|my|our|safety|content)\b",
    # No image was provided.
    rf"(?:there (?:is|are|was|were) )?no {_MEDIA}(?: content| file| data| input)?"
    rf"(?: (?:is|are|was|were|has been|have been))? {_GIVEN}",
    r"(?:please|could you|can you|kindly) (?:please )?(?:provide|upload|share|attach|send|give me|supply|clarify)\b"
    rf".{{0,40}}\b(?:context|details?|information|content|request|{_MEDIA})\b",
    r"(?:it (?:seems|looks|appears)(?: like| that)? )?you (?:have not|haven't|did not|didn't|forgot to) "
    r"(?:provided?|uploade?d?|attach(?:ed)?|shared?|included?)\b",
    rf"it (?:seems|looks|appears)(?: like| that)? (?:there (?:is|are|was|were) )?no {_MEDIA}\b.{{0,30}}\b{_GIVEN}",
]
_ELSEWHERE = [
    r"es tut mir (?:sehr )?leid,? (?:aber )?(?:ich|dabei|das)\b",
    r"(?:entschuldigung|leider),? (?:aber )?(?:kann|ich kann|darf|konnte)\b",
    r"ich kann (?:dabei|das|dies|ihnen|dir|diese)[^.]*\bnicht\b",
    r"(?:je suis )?(?:vraiment )?désolée?,? (?:mais )?je\b",
    r"je ne (?:peux|puis|suis) pas\b",
    r"lo siento,? (?:pero )?(?:no|como|esta|este)\b",
    r"no puedo (?:ayudar|describir|proporcionar|procesar|cumplir|ver|hacer)",
    r"(?:desculpe|sinto muito|lamento),? (?:mas )?(?:não|eu)\b",
    r"não posso (?:ajudar|descrever|fornecer|processar|fazer)",
    r"mi dispiace,? (?:ma )?(?:non|io)\b",
    r"non posso (?:aiutar|descrivere|fornire|elaborare|fare)",
    r"(?:很抱歉|抱歉|对不起|對不起)[,，。]?\s*(?:但)?(?:我|无法|無法|这|這)",
    r"我(?:无法|無法|不能)(?:帮助|协助|描述|提供|满足|處理|处理|協助|看到)",
    r"(?:申し訳(?:ありません|ございません)|すみません|ごめんなさい)[がけ、。]",
    r"(?:죄송합니다|죄송하지만|미안하지만)",
    r"(?:извините|к сожалению|простите),? (?:но )?я\b",
    r"я не могу (?:помочь|описать|предоставить|обработать)",
]
_REFUSAL = re.compile(rf"^(?:{'|'.join([*_REFUSALS, *_ELSEWHERE])})", re.IGNORECASE)

_CONTENT = r"(?:visual |visible |visually )?(?:content|information|subject matter|caption|description|data|details?)"
_CLEAR = (
    r"(?:discernible|visible|recogni[sz]able|identifiable|meaningful|clear|distinguishable|apparent|available|usable|"
    r"relevant)"
)
_SHOWN = r"(?:visible|discernible|seen|present|shown|available|provided|detected|found|identifiable|possible|generated)"
_IS = r"(?: (?:is|are|can be|could be|was|were))?"
_WHERE = (
    r"(?:\s*(?:in|from|within|of|for|to)\s+(?:(?:this|the|these|any of the|all)\s+)?(?:\w+\s+)?"
    r"(?:videos?|clips?|frames?|images?|pictures?|footage|sequence|describe|caption|show))?"
)
_NOTHINGS = [
    rf"(?:there (?:is|are|'s|was|were) )?no (?:{_CLEAR},? )*(?:or {_CLEAR} )?{_CONTENT}{_IS}(?: {_SHOWN})?{_WHERE}",
    rf"(?:there (?:is|'s|was) )?nothing{_IS}(?: {_CLEAR}| {_SHOWN})?{_WHERE}",
    rf"(?:the )?{_CONTENT}(?: of (?:the|this) \w+)? (?:is|are) "
    rf"(?:not {_CLEAR}|unclear|unknown|indiscernible|unavailable)",
    rf"(?:the |this )?(?:{_MEDIA}|content)(?: (?:is|are|was|were))? (?:not found|unavailable|not available|missing|"
    r"not visible(?: to me)?|failed to load|blank|unclear|unreadable|corrupted)",
    r"(?:unknown|unclear|indiscernible|undiscernible|unrecogni[sz]able|unidentifiable) "
    r"(?:content|image|images|video|frames)",
    r"n/?a|none|null|nil|undefined|unknown|unclear|untitled|string|text|captions?|description|captions? here|"
    r"(?:your|the|insert|a|one|first|second|third) (?:\w+ )?(?:captions?|description|sentence)(?: (?:goes )?here)?|"
    r"not applicable|not available|unavailable|empty|blank|error|todo|tbd|no|yes|true|false|ok|okay|sure|done|json",
]
_NOTHING = re.compile(rf"(?:{'|'.join(_NOTHINGS)})", re.IGNORECASE)


def is_refusal(text: str) -> bool:
    """Whether a model declines, or says that it was shown nothing, where a caption is expected.

    Args:
        text: cleaned.
    """
    return _REFUSAL.match(" ".join(text.replace("’", "'").replace("‘", "'").split())) is not None


def is_nothing(text: str) -> bool:
    """Whether a caption tells nothing: no letter in it, a placeholder, or that nothing can be seen.

    Args:
        text: cleaned.
    """
    if not any(letter.isalpha() for letter in text):
        return True
    bare = text.strip(" \"'.,:;!?…()[]<>{}*_`-–—")
    return _NOTHING.fullmatch(bare) is not None
